//! The version of a file, which any change to it changes.

/// A version of a file: any write, replacement or reuse of its place changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    pub(crate) device: u64,
    pub(crate) file: u64,
    pub(crate) size: u64,
    pub(crate) modified: (i64, i64),
    pub(crate) changed: (i64, i64),
}

impl Version {
    /// Whether both are versions of one file.
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        (self.device, self.file) == (other.device, other.file)
    }
}
