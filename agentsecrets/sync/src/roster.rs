//! Members, roles, rights and shared files of a workspace: the part of its state that operations change.

use std::collections::{BTreeMap, BTreeSet};

use agentsecrets_vault::Base64;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::identity::PublicIdentity;

/// What a member may do in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Changes members and rights, and writes every environment.
    Admin,
    /// Reads or writes the environments that an admin granted, and makes new ones.
    Member,
    /// Reads or writes the environments that an admin granted.
    Agent,
}

/// What a member may do in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Nothing: its key is not sealed to them.
    None,
    /// Read secrets.
    Read,
    /// Read and change secrets.
    Write,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The id that the store sees.
    pub id: Id,
    /// The mail address, or another name.
    pub email: String,
    /// The role.
    pub role: Role,
    /// The keys.
    pub public: PublicIdentity,
}

/// An invitation that nobody has joined with yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingInvitation {
    /// The id, also that of the later member.
    pub id: Id,
    /// The mail address of the invited person.
    pub email: String,
    /// The role that they get.
    pub role: Role,
    /// The environments that they get.
    pub access: BTreeMap<Id, Access>,
    /// The Ed25519 public key of the invitation's secret.
    pub key: Base64,
}

/// A file that the team shares: the policy or the trusted programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedFile {
    /// The name, such as `policy`.
    pub name: String,
    /// The content.
    pub content: String,
}

/// A change of members, rights or shared files. Admins make them; exceptions are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Add a member.
    Add {
        /// The member.
        member: Member,
    },
    /// Remove a member.
    Remove {
        /// The member.
        member: Id,
    },
    /// Change a role.
    Role {
        /// The member.
        member: Id,
        /// The new role.
        role: Role,
    },
    /// Change the access to an environment.
    Access {
        /// The member.
        member: Id,
        /// The environment.
        environment: Id,
        /// The new access.
        access: Access,
    },
    /// Invite somebody.
    Invite {
        /// The invitation.
        invitation: PendingInvitation,
    },
    /// Withdraw or fulfil an invitation.
    Uninvite {
        /// The invitation.
        invitation: Id,
    },
    /// Share a file.
    Share {
        /// The file.
        file: SharedFile,
    },
}

/// Members, rights and shared files.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// The members.
    pub members: BTreeMap<Id, Member>,
    /// The removed members.
    pub former: BTreeMap<Id, Member>,
    /// Pending invitations.
    pub invitations: BTreeMap<Id, PendingInvitation>,
    /// Access by environment and member; admins write everywhere.
    pub access: BTreeMap<Id, BTreeMap<Id, Access>>,
    /// Shared files by name, each with the number of its commit.
    pub files: BTreeMap<String, (u64, String)>,
}

impl Roster {
    /// The access of `member` to `environment`.
    pub fn access(&self, member: Id, environment: Id) -> Access {
        match self.members.get(&member) {
            None => Access::None,
            Some(member) if member.role == Role::Admin => Access::Write,
            Some(_) => {
                let granted = self.access.get(&environment).and_then(|members| members.get(&member));
                granted.copied().unwrap_or(Access::None)
            }
        }
    }

    /// The members that hold `key`.
    pub fn readers(&self, key: Id) -> BTreeSet<Id> {
        let all = self.members.keys().copied();
        all.filter(|member| key == Id::WORKSPACE_KEY || self.access(*member, key) >= Access::Read).collect()
    }

    /// The member with this mail address.
    pub fn by_email(&self, email: &str) -> Option<&Member> {
        self.members.values().find(|member| member.email.eq_ignore_ascii_case(email))
    }

    /// The pending invitation of this mail address.
    pub fn invitation(&self, email: &str) -> Option<&PendingInvitation> {
        self.invitations.values().find(|invitation| invitation.email.eq_ignore_ascii_case(email))
    }

    /// The mail address of a present or former member.
    pub fn email(&self, member: Id) -> String {
        let known = self.members.get(&member).or_else(|| self.former.get(&member));
        known.map_or_else(|| format!("an unknown member {member}"), |member| member.email.clone())
    }

    /// Whether `member` is an admin.
    pub fn is_admin(&self, member: Id) -> bool {
        self.members.get(&member).is_some_and(|member| member.role == Role::Admin)
    }

    /// Applies an operation of commit `seq`; the reason if it makes no sense.
    pub(crate) fn apply(&mut self, seq: u64, operation: Operation) -> Result<(), &'static str> {
        match operation {
            Operation::Add { member } => self.add(member),
            Operation::Remove { member } => {
                let removed = self.members.remove(&member).ok_or("removes somebody who is no member")?;
                for members in self.access.values_mut() {
                    members.remove(&member);
                }
                self.former.insert(member, removed);
                Ok(())
            }
            Operation::Role { member, role } => {
                let found = self.members.get_mut(&member).ok_or("changes the role of no member")?;
                found.role = role;
                Ok(())
            }
            Operation::Access { member, environment, access } => {
                if !self.members.contains_key(&member) {
                    return Err("changes the access of no member");
                }
                self.access.entry(environment).or_default().insert(member, access);
                Ok(())
            }
            Operation::Invite { invitation } => {
                let known = self.by_email(&invitation.email).is_some() || self.is_known(invitation.id);
                if known || self.invitation(&invitation.email).is_some() {
                    return Err("invites somebody twice");
                }
                self.invitations.insert(invitation.id, invitation);
                Ok(())
            }
            Operation::Uninvite { invitation } => {
                self.invitations.remove(&invitation).map(drop).ok_or("withdraws no invitation")
            }
            Operation::Share { file } => {
                self.files.insert(file.name, (seq, file.content));
                Ok(())
            }
        }
    }

    fn add(&mut self, member: Member) -> Result<(), &'static str> {
        if self.is_known(member.id) || self.by_email(&member.email).is_some() {
            return Err("adds a member twice");
        }
        if !member.public.is_well_formed() {
            return Err("adds a member with invalid keys");
        }
        self.members.insert(member.id, member);
        Ok(())
    }

    /// An id names one member for ever.
    fn is_known(&self, id: Id) -> bool {
        self.members.contains_key(&id) || self.former.contains_key(&id)
    }
}
