//! Interception without programs of ours in the kernel: rules of a pod's network lead every connection to our two
//! doors, and drop what else leaves. They belong to the network, so that they stay when we are gone, and an agent
//! without an interceptor is offline. Our own packets are told apart by the user of their socket; a rule
//! cannot know more of who sends, and the manual says what follows from that.

use std::io;
use std::net::SocketAddr;

use nlink::netlink::nftables::{
    BaseChain, Chain, CmpOp, CtDirection, CtStatus, Expr, Family, Field, FilterHook, Match, MetaKey, NatHook,
    Policy, Priority, Register, Rule, Transaction, Value,
};
use nlink::netlink::{Connection, Nftables};
use socket2::SockRef;

use super::ebpf::Ports;

const TABLE: &str = "agentsecrets";
const LEAD: &str = "lead";
const HOLD: &str = "hold";
/// Marks our own connections, so that their last packets, which have no socket any more, are recognised.
const OURS: u32 = 0x6173_6f75;

const TCP: u8 = 6;
const DNS: u16 = 53;
/// Neighbour discovery of IPv6, which the kernel does for everybody.
const NEIGHBOURS: [u8; 5] = [133, 134, 135, 136, 137];

/// Why no rule is in force.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel takes no rules for this network ({0}); it takes CAP_NET_ADMIN, and a kernel with nf_tables, \
     connection tracking and redirection"
)]
pub struct NftablesError(io::Error);

/// Puts rules in force in the network of this process, in place of those that an earlier process of ours left, with
/// no moment in between: connections lead to `ports`, names are asked for there, `passes` is the user whose packets
/// go out as they are, and answers leave from the ports `inbound`.
///
/// # Errors
/// When the kernel takes none of them. What was in force before still is.
pub fn hold(ports: Ports, passes: u32, inbound: &[u16]) -> Result<(), NftablesError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NftablesError)?;
    let done = runtime.block_on(async {
        let kernel = Connection::<Nftables>::new()?;
        let left = kernel.list_tables_in(Family::Inet).await?.iter().any(|table| table.name == TABLE);
        let begun = kernel.transaction();
        let begun = if left { begun.del_table(TABLE, Family::Inet) } else { begun };
        rules(begun, ports, passes, inbound)?.commit(&kernel).await
    });
    done.map_err(|error: nlink::Error| NftablesError(io::Error::other(error.to_string())))
}

fn rules(
    mut all: Transaction,
    ports: Ports,
    passes: u32,
    inbound: &[u16],
) -> Result<Transaction, nlink::Error> {
    let lead = BaseChain::nat(NatHook::Output, Priority::DstNat);
    // After routing: what was led elsewhere has its new device only then.
    let hold = BaseChain::filter(FilterHook::Postrouting, Priority::Filter).policy(Policy::Drop);
    all = all
        .add_table(TABLE, Family::Inet)
        .add_chain(Chain::new(TABLE, LEAD)?.family(Family::Inet).base(lead))
        .add_chain(Chain::new(TABLE, HOLD)?.family(Family::Inet).base(hold));
    for rule in leading(ports, passes).into_iter().chain(holding(passes, inbound)) {
        all = all.add_rule(rule);
    }
    Ok(all)
}

/// Rules that redirect connections; evaluated once per connection.
fn leading(ports: Ports, passes: u32) -> [Rule; 4] {
    let rule = || Rule::new(TABLE, LEAD).family(Family::Inet);
    [
        owned_by(rule(), CmpOp::Eq, passes).accept(),
        rule().match_udp_dport(DNS).redirect(Some(ports.dns)),
        rule().match_tcp_dport(DNS).redirect(Some(ports.dns)),
        rule().match_l4proto(TCP).redirect(Some(ports.listener)),
    ]
}

/// Rules that let packets leave; evaluated per packet, in this order. All else is dropped.
fn holding(passes: u32, inbound: &[u16]) -> Vec<Rule> {
    let rule = || Rule::new(TABLE, HOLD).family(Family::Inet);
    let ours = || Match::eq(Field::CtMark, Value::Int(OURS.into()));
    let mut rules = vec![
        // What was led to our doors, and our answers.
        rule().match_oif("lo").match_ct_status(CtStatus::DST_NAT).accept(),
        owned_by(rule(), CmpOp::Eq, passes).set_ct_mark(OURS).accept(),
    ];
    rules.extend(
        inbound
            .iter()
            .map(|port| rule().match_ct_direction(CtDirection::Reply).match_tcp_sport(*port).accept()),
    );
    rules.extend([
        // Before the next: an agent may take up the ports of a connection of ours that is over.
        owned_by(rule(), CmpOp::Neq, passes).drop(),
        rule().then(ours()).accept(),
    ]);
    rules.extend(NEIGHBOURS.map(|kind| rule().match_icmpv6_type(kind).accept()));
    rules
}

/// Goes on if the packet is of a socket, and that is or is not this user's.
fn owned_by(rule: Rule, is: CmpOp, user: u32) -> Rule {
    rule.expr(Expr::Meta { dreg: Register::R0, key: MetaKey::SkUid }).expr(Expr::Cmp {
        sreg: Register::R0,
        op: is,
        data: user.to_ne_bytes().to_vec(),
    })
}

/// The original destination of an accepted stream; `None` if it was not redirected.
///
/// # Errors
/// If the kernel does not answer.
pub fn original(stream: &tokio::net::TcpStream, local: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match found {
        // The tracker knows a connection that came to us directly, as well.
        Ok(found) => Ok(found.as_socket().filter(|wanted| *wanted != local)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
