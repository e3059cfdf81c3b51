//! Giving up capabilities: the calling thread keeps those that are named, in no set that a program
//! executed later could gain from. It refuses to add any.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// Leaves the calling thread with `kept` alone, and with no way to more. Call it with a single thread:
/// capabilities are each thread's own.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    bound_to(kept)?;
    let had = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|capability| had.contains(capability)).collect();
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &kept).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

/// Empties the bounding set but for `kept`. It takes a capability that is about to go. Where we never had it,
/// as in a container that was given few, no program executed from here on can gain what is left there.
pub fn bound_to(kept: &[Capability]) -> io::Result<()> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        return Ok(prctl::set_no_new_privs()?);
    }
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
        }
    }
    Ok(())
}
