//! A secret value: it cannot be printed, copied or serialised, and is wiped when dropped.

#[cfg(target_os = "linux")]
use agentsecrets_sys::memory::Pages;
use subtle::ConstantTimeEq;
#[cfg(not(target_os = "linux"))]
use zeroize::Zeroizing;

/// The value of a credential. It has no `Debug`, `Display`, `Serialize` or `Clone` on purpose; its
/// memory is locked against swapping, kept out of core dumps and of forked children where the system
/// allows.
pub struct Secret {
    #[cfg(target_os = "linux")]
    pages: Pages,
    #[cfg(not(target_os = "linux"))]
    bytes: Zeroizing<Box<[u8]>>,
}

impl Secret {
    /// Takes over `bytes`, which must not have been copied elsewhere.
    pub fn new(bytes: Vec<u8>) -> Self {
        #[cfg(target_os = "linux")]
        {
            let layout = std::alloc::Layout::for_value(bytes.as_slice());
            // Out of memory: what any other allocation does then.
            let pages = Pages::take(bytes).unwrap_or_else(|_| std::alloc::handle_alloc_error(layout));
            Self { pages }
        }
        #[cfg(not(target_os = "linux"))]
        Self { bytes: Zeroizing::new(bytes.into_boxed_slice()) }
    }

    /// Shows the value to the code that spends it. Every call is a place to review.
    pub fn expose(&self) -> &[u8] {
        #[cfg(target_os = "linux")]
        return self.pages.bytes();
        #[cfg(not(target_os = "linux"))]
        &self.bytes
    }

    /// Its length, in bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl PartialEq for Secret {
    /// Compares in constant time for values of equal length.
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}
