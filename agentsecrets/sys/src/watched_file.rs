//! A file that is followed: what it says now, as other threads see it. What cannot be understood changes
//! nothing, unless whoever reads it says what it means then.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// A change is read when the folder has been quiet for so long.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Under constant writing it is read after so long all the same.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// The file is looked at so often even when the system reports nothing: a link may lead to a folder that is
/// not watched, and a network file system reports none.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Parses one kind of file.
pub trait FileSource: Send + Sync + 'static {
    /// The parsed content.
    type Content: Send + Sync + 'static;
    /// Why it could not be read or understood.
    type Error: Display + From<io::Error> + Send + Sync + 'static;

    /// The name of the file in messages: `policy`.
    const NAME: &'static str;

    /// The file's text; none where there is no file.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    fn text(&self) -> Result<Option<String>, Self::Error>;

    /// Parses `text`; `last` is the content in force before.
    ///
    /// # Errors
    /// If the text is invalid; the last content stays in force.
    fn parse(&self, text: Option<&str>, last: Option<&Self::Content>) -> Result<Self::Content, Self::Error>;

    /// Whether what was read may have changed although the text did not.
    fn is_stale(&self, _content: &Self::Content) -> bool {
        false
    }
}

/// A file, and what it says. Dropping it ends the following.
pub struct WatchedFile<R: FileSource> {
    state: Arc<State<R>>,
    // Dropping the watcher closes the channel, which ends the thread.
    _watcher: Option<RecommendedWatcher>,
    _wake: Sender<()>,
}

struct State<R: FileSource> {
    reading: Option<R>,
    content: ArcSwap<R::Content>,
    error: ArcSwapOption<R::Error>,
    generation: watch::Sender<u64>,
}

impl<R: FileSource> WatchedFile<R> {
    /// Reads the file at `path` and follows its changes.
    ///
    /// # Errors
    /// When it cannot be read or understood now.
    pub fn open(path: &Path, reading: R) -> Result<Self, R::Error> {
        let (wake, woken) = channel();
        // Watched before it is read, so that no change falls between.
        let watcher = watch_folder::<R>(path, wake.clone());
        let text = reading.text()?;
        let content = reading.parse(text.as_deref(), None)?;
        let state = Arc::new(State::new(Some(reading), content));
        let weak = Arc::downgrade(&state);
        let thread = std::thread::Builder::new().name(R::NAME.to_owned());
        thread.spawn(move || follow(&weak, &woken, text))?;
        Ok(Self { state, _watcher: watcher, _wake: wake })
    }

    /// `content`, which stays.
    pub fn fixed(content: R::Content) -> Self {
        Self { state: Arc::new(State::new(None, content)), _watcher: None, _wake: channel().0 }
    }

    /// The present content.
    pub fn get(&self) -> Arc<R::Content> {
        self.state.content.load_full()
    }

    /// Why the newest file could not be used, where it could not.
    pub fn last_error(&self) -> Option<Arc<R::Error>> {
        self.state.error.load_full()
    }

    /// Reports each change: how many there were.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.state.generation.subscribe()
    }

    /// Reads the file now, whatever it said before.
    pub fn refresh(&self) {
        self.state.refresh(&mut None);
    }
}

impl<R: FileSource> State<R> {
    fn new(reading: Option<R>, content: R::Content) -> Self {
        Self {
            reading,
            content: ArcSwap::from_pointee(content),
            error: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
        }
    }

    /// Reads the file if it is not what was `seen` last.
    fn refresh(&self, seen: &mut Option<Option<String>>) {
        let Some(reading) = &self.reading else { return };
        let text = reading.text();
        if let Ok(text) = &text
            && seen.as_ref() == Some(text)
            && !reading.is_stale(&self.content.load())
        {
            return;
        }
        *seen = None;
        let result = text.and_then(|text| {
            let content = reading.parse(text.as_deref(), Some(&self.content.load()));
            *seen = Some(text);
            content
        });
        match result {
            Ok(content) => {
                self.content.store(Arc::new(content));
                self.error.store(None);
                self.generation.send_modify(|generation| *generation += 1);
            }
            Err(error) => {
                let last = self.error.load();
                if last.as_ref().is_none_or(|last| last.to_string() != error.to_string()) {
                    let what = R::NAME;
                    tracing::error!(%error, "the {what} file is not usable: what was before stays in force");
                }
                self.error.store(Some(Arc::new(error)));
            }
        }
    }
}

/// The folder is watched, not the file: editors and mounted configuration replace the file.
fn watch_folder<R: FileSource>(path: &Path, wake: Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        let kind = event.map(|event| event.kind);
        // Our own reading must not wake us.
        let read =
            matches!(kind, Ok(EventKind::Access(access)) if access != AccessKind::Close(AccessMode::Write));
        if !read {
            let _ = wake.send(());
        }
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    let what = R::NAME;
    watcher
        .inspect_err(
            |error| tracing::warn!(%error, "the folder of the {what} file cannot be watched: it is looked at instead"),
        )
        .ok()
}

fn follow<R: FileSource>(state: &Weak<State<R>>, woken: &Receiver<()>, text: Option<String>) {
    let mut seen = Some(text);
    loop {
        match woken.recv_timeout(POLL_INTERVAL) {
            Ok(()) => settle(woken),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(state) = state.upgrade() else { return };
        state.refresh(&mut seen);
    }
}

/// Waits until nothing more is reported.
fn settle(woken: &Receiver<()>) {
    let end = Instant::now() + STALE_AFTER;
    while Instant::now() < end && woken.recv_timeout(DEBOUNCE).is_ok() {}
}
