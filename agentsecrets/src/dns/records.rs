//! What a name has besides addresses: mail servers, services, texts and the rest, asked of the system's name
//! servers for allowed names alone. What would lead traffic around us (HTTPS, SVCB) does not exist here.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};

use super::resolver::ResolveError;
use crate::dns::server::{LONGEST_TTL, Names};
use crate::types::host::Host;

impl<A: Fn(&Host) -> bool> Names<A> {
    /// The records of this kind that `host`, spelt `name` in the question, has.
    pub(super) async fn others(
        &self,
        host: &Host,
        name: &Name,
        kind: RecordType,
    ) -> Result<Vec<Record>, ResponseCode> {
        match kind {
            RecordType::AXFR | RecordType::IXFR => return Err(ResponseCode::Refused),
            RecordType::HTTPS | RecordType::SVCB | RecordType::ANY => return Ok(Vec::new()),
            _ if !(self.allows)(host) => return Ok(Vec::new()),
            _ => {}
        }
        let (mut records, ttl) = match self.resolver.lookup_records(host, kind).await {
            Ok(found) => found,
            Err(ResolveError::NotFound) => return Err(ResponseCode::NXDomain),
            Err(_) => return Err(ResponseCode::ServFail),
        };
        records.retain(|record| {
            matches!(record.record_type(), RecordType::CNAME) || record.record_type() == kind
        });
        let ttl = u32::try_from(ttl.min(Duration::from_secs(LONGEST_TTL)).as_secs()).unwrap_or(0);
        for record in &mut records {
            record.ttl = record.ttl.min(ttl);
        }
        // Some clients compare letter by letter, and vary the case to make forgery harder.
        for record in records.iter_mut().filter(|record| record.name == *name) {
            record.name = name.clone();
        }
        Ok(records)
    }

    /// Whether `name` is an allowed name with one of the system's search domains behind it. Such a name does
    /// not exist, so that the client goes on to the one that is meant.
    pub(super) fn is_searched(&self, name: &str) -> bool {
        self.resolver.search_domains().iter().any(|domain| {
            let meant = name.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
            let meant = meant.and_then(|meant| meant.parse::<Host>().ok());
            meant.is_some_and(|meant| (self.allows)(&meant))
        })
    }
}
