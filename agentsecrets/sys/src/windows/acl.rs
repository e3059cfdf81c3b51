//! Access lists: a folder of ours is for its user, the system and administrators, and so is every file, whatever the
//! folder says that it is in. A file that matters is refused where its list lets in anybody else.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::mem::offset_of;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{ERROR_LOCK_VIOLATION, ERROR_SUCCESS, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1, SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, EqualSid, GetAce, INHERIT_ONLY_ACE,
    IsWellKnownSid, OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR,
    PSID, SECURITY_ATTRIBUTES, SetFileSecurityW, WinBuiltinAdministratorsSid, WinCreatorOwnerRightsSid,
    WinCreatorOwnerSid, WinLocalSystemSid,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, CreateDirectoryW, FILE_APPEND_DATA, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_GENERIC_READ, FILE_GENERIC_WRITE, FILE_READ_DATA, FILE_WRITE_DATA, GetFileInformationByHandle,
    LockFile, READ_CONTROL, UnlockFile,
};

use super::call::{done, wide};
use crate::file_version::Version;
use crate::windows::process_table::own_sid;

/// The upper half of a place that no file reaches.
const FAR: u32 = 1 << 30;
/// The kind of an entry that allows.
const ALLOWS: u8 = 0;
/// An entry may speak of rights as a class; these are "all" and "read" and "write".
const GENERIC: u32 = 0x1000_0000 | 0x8000_0000 | 0x4000_0000;

impl Version {
    /// Of an open file. The system keeps no time of change that a program could not set.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut found = BY_HANDLE_FILE_INFORMATION::default();
        // SAFETY: the handle is open, and the system fills a structure that lives across the call.
        done(unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) })?;
        let two = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let time = |high, low| (i64::try_from(two(high, low)).unwrap_or(i64::MAX), 0);
        let (written, made) = (found.ftLastWriteTime, found.ftCreationTime);
        Ok(Self {
            device: found.dwVolumeSerialNumber.into(),
            file: two(found.nFileIndexHigh, found.nFileIndexLow),
            size: two(found.nFileSizeHigh, found.nFileSizeLow),
            modified: time(written.dwHighDateTime, written.dwLowDateTime),
            changed: time(made.dwHighDateTime, made.dwLowDateTime),
        })
    }
}

/// Makes a folder that is for its user, the system and administrators alone, as what others make in it will be.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    let private = Private::new("OICI")?;
    let attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: private.0,
        bInheritHandle: 0,
    };
    // SAFETY: the path ends in a zero, and the attributes and their descriptor live across the call.
    done(unsafe { CreateDirectoryW(wide(folder).as_ptr(), &raw const attributes) })
}

/// Makes a new file, in which nothing stands yet, one for its user, the system and administrators alone.
pub fn make_private(file: &Path) -> io::Result<()> {
    let (private, path) = (Private::new("")?, wide(file));
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    // SAFETY: the path ends in a zero, and the descriptor lives across the call.
    done(unsafe { SetFileSecurityW(path.as_ptr(), what, private.0) })
}

/// A descriptor whose list lets in our user, the system and administrators alone.
struct Private(PSECURITY_DESCRIPTOR);

impl Private {
    /// `inherits` says to what in a folder it applies.
    fn new(inherits: &str) -> io::Result<Self> {
        let user = own_sid()?.text()?;
        let entries = [&user, "SY", "BA"].map(|who| format!("(A;{inherits};FA;;;{who})"));
        let list = wide(format!("D:P{}", entries.concat()));
        let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
        // SAFETY: the text ends in a zero; the system allocates the descriptor, which is freed when this is dropped.
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                list.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        })?;
        Ok(Self(descriptor))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: the system allocated it for us, and nothing refers to it any more.
        unsafe { LocalFree(self.0) };
    }
}

/// Opens `path` for appending. Opened for writing anywhere, since a
/// file opened for appending alone cannot be cut.
pub fn append(path: &Path) -> io::Result<File> {
    let access = FILE_GENERIC_READ | FILE_GENERIC_WRITE;
    let mut file = OpenOptions::new().write(true).create(true).access_mode(access).open(path)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Locks a file that others read meanwhile. What is locked here nobody else can read, so it is a byte where no file
/// reaches.
pub fn try_lock(file: &File) -> Result<(), TryLockError> {
    // SAFETY: takes no pointer, and the handle is open.
    match done(unsafe { LockFile(file.as_raw_handle(), 0, FAR, 1, 0) }) {
        Err(error) if error.raw_os_error() == Some(ERROR_LOCK_VIOLATION as i32) => {
            Err(TryLockError::WouldBlock)
        }
        locked => locked.map_err(TryLockError::Error),
    }
}

/// Gives up that lock.
pub fn unlock(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointer, and the handle is open.
    done(unsafe { UnlockFile(file.as_raw_handle(), 0, FAR, 1, 0) })
}

/// Nothing: a new file belongs to who made it.
pub fn give(_new: &File, _folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Nothing, likewise.
pub fn give_as(_new: &File, _was: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Nothing, likewise.
pub fn give_folder(_new: &Path, _folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Nothing: the system keeps a journal of what is renamed.
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Fails if anybody but its user, the system and administrators may read or write the `file`.
pub fn check_private(_file: &File, path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().access_mode(READ_CONTROL).open(path)?;
    check(&file, path, "F")
}

/// Fails if anybody but its user, the system and administrators may look into the folder at `path`.
pub fn check_private_folder(path: &Path) -> io::Result<()> {
    // What is no folder is told by the file system, as elsewhere.
    fs::metadata(path)?;
    let folder =
        OpenOptions::new().access_mode(READ_CONTROL).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)?;
    check(&folder, path, "(OI)(CI)F")
}

fn check(file: &File, path: &Path, rights: &str) -> io::Result<()> {
    let (mut owner, mut list): (PSID, *mut ACL) = (null_mut(), null_mut());
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is open with the right to read its security; the system allocates the descriptor,
    // which is freed below, and lets `owner` and `list` point into it.
    let code = unsafe {
        GetSecurityInfo(
            file.as_raw_handle(),
            SE_FILE_OBJECT,
            OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
            &raw mut owner,
            null_mut(),
            &raw mut list,
            null_mut(),
            &raw mut descriptor,
        )
    };
    if code != ERROR_SUCCESS {
        return Err(io::Error::from_raw_os_error(code as i32));
    }
    let open = lets_in_others(list, owner);
    // SAFETY: the system allocated it for us, and nothing refers to it any more.
    unsafe { LocalFree(descriptor) };
    if !open? {
        return Ok(());
    }
    let shown = path.display();
    let message = format!(
        "{shown} can be read or written by others; run: icacls \"{shown}\" /inheritance:r /grant:r \
         \"%USERNAME%:{rights}\""
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Whether `list` allows reading or writing to anybody else. No list at all allows everything.
fn lets_in_others(list: *mut ACL, owner: PSID) -> io::Result<bool> {
    if list.is_null() {
        return Ok(true);
    }
    let own = own_sid()?;
    // SAFETY: the list is valid for as long as its descriptor, which the caller keeps.
    let count = unsafe { (*list).AceCount };
    for number in 0..u32::from(count) {
        let mut entry = null_mut();
        // SAFETY: the list is valid, and the system lets `entry` point into it.
        done(unsafe { GetAce(list, number, &raw mut entry) })?;
        // SAFETY: every entry begins with this header.
        let header = unsafe { *entry.cast::<ACE_HEADER>() };
        if u32::from(header.AceFlags) & INHERIT_ONLY_ACE != 0 {
            continue;
        }
        if header.AceType != ALLOWS {
            // One that denies lets nobody in; what we do not know may.
            if header.AceType == 1 { continue } else { return Ok(true) }
        }
        // SAFETY: an entry of this kind has this form, at whose end the identifier begins.
        let (mask, who) = unsafe {
            let allows = entry.cast::<ACCESS_ALLOWED_ACE>();
            let who: PSID = entry.byte_add(offset_of!(ACCESS_ALLOWED_ACE, SidStart));
            ((*allows).Mask, who)
        };
        if mask & (FILE_READ_DATA | FILE_WRITE_DATA | FILE_APPEND_DATA | GENERIC) == 0 {
            continue;
        }
        let trusted =
            [WinLocalSystemSid, WinBuiltinAdministratorsSid, WinCreatorOwnerSid, WinCreatorOwnerRightsSid];
        // SAFETY: all three are valid identifiers that live across the calls.
        let known = unsafe {
            EqualSid(who, own.as_ptr()) != 0
                || (!owner.is_null() && EqualSid(who, owner) != 0)
                || trusted.iter().any(|kind| IsWellKnownSid(who, *kind) != 0)
        };
        if !known {
            return Ok(true);
        }
    }
    Ok(false)
}
