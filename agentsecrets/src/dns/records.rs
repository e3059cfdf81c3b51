//! Records other than addresses: mail servers, services, texts and the rest. HTTPS and SVCB records would lead
//! traffic around us, so that no name has any.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};

use super::resolver::{ResolveError, Resolver};
use super::ttl::MAX_TTL;
use crate::types::host::Host;

/// The records of type `kind` of `host`, which the query spells `name`. Only an allowed name is looked up.
pub(super) async fn lookup(
    resolver: &Resolver,
    host: &Host,
    name: &Name,
    kind: RecordType,
    is_allowed: bool,
) -> Result<Vec<Record>, ResponseCode> {
    match kind {
        RecordType::AXFR | RecordType::IXFR => return Err(ResponseCode::Refused),
        RecordType::HTTPS | RecordType::SVCB | RecordType::ANY => return Ok(Vec::new()),
        _ if !is_allowed => return Ok(Vec::new()),
        _ => {}
    }
    let (mut records, ttl) = match resolver.lookup_records(host, kind).await {
        Ok(found) => found,
        Err(ResolveError::NotFound) => return Err(ResponseCode::NXDomain),
        Err(_) => return Err(ResponseCode::ServFail),
    };
    records
        .retain(|record| matches!(record.record_type(), RecordType::CNAME) || record.record_type() == kind);
    let ttl = u32::try_from(ttl.min(Duration::from_secs(MAX_TTL)).as_secs()).unwrap_or(0);
    for record in &mut records {
        record.ttl = record.ttl.min(ttl);
    }
    // Some clients compare letter by letter, and vary the case to make forgery harder.
    for record in records.iter_mut().filter(|record| record.name == *name) {
        record.name = name.clone();
    }
    Ok(records)
}
