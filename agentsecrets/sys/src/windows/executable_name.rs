//! Resolves the name of a program: `npm` is a script called `npm.cmd`, which shells find, and the system's
//! own way to start a program does not.

use std::env::{split_paths, var_os};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Extensions of programs if the environment gives none.
const USUAL: &str = ".COM;.EXE;.BAT;.CMD";

/// The file to start for a program of this name, as shells choose it: the first folder of `PATH` decides, then the
/// order of `PATHEXT`. What is found nowhere is left as it is. The folder that we are in is not looked into.
pub fn runnable(program: &OsStr) -> OsString {
    let path = Path::new(program);
    let endings = var_os("PATHEXT").unwrap_or_else(|| USUAL.into());
    let endings: Vec<OsString> = split_paths(&endings).map(PathBuf::into_os_string).collect();
    let is_bare = path.components().count() == 1 && !path.is_absolute();
    let folders: Vec<PathBuf> = match is_bare {
        true => {
            split_paths(&var_os("PATH").unwrap_or_default()).filter(|folder| folder.is_absolute()).collect()
        }
        false => vec![PathBuf::new()],
    };
    let found = folders.iter().find_map(|folder| in_folder(&folder.join(path), &endings));
    found.map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

fn in_folder(path: &Path, endings: &[OsString]) -> Option<PathBuf> {
    let has_ending = path.extension().is_some_and(|own| {
        endings.iter().any(|ending| {
            ending.to_string_lossy().trim_start_matches('.').eq_ignore_ascii_case(&own.to_string_lossy())
        })
    });
    if has_ending && path.is_file() {
        return Some(path.to_path_buf());
    }
    endings.iter().find_map(|ending| {
        let mut named = path.as_os_str().to_owned();
        named.push(ending);
        Some(PathBuf::from(named)).filter(|named| named.is_file())
    })
}
