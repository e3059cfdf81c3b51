//! Approvals by a person. Policy yields a `PendingApproval`; the [`ApprovalQueue`] shows it to a person and
//! yields an `Approval` of exactly what that person saw. Only an approval turns the pending request into a
//! grant.

mod approved;
mod digest;
pub(crate) mod files;
pub(crate) mod queue;

pub(crate) use approved::{Approver, ReleaseError};
pub(crate) use digest::BoundRequest;
pub(crate) use queue::ApprovalQueue;
