//! `listen.proxy_protocol`: the addresses of load balancers that say whose a connection is.
//!
//! Called by `check` only. Whoever stands at such an address chooses the address that rates are counted by, so a
//! network that is written too wide is refused where that can be seen: everybody is nobody's balancer.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::check::{expected, string};
use crate::http::proxy::Proxies;

const WHAT: &str = "addresses and networks of load balancers, such as [\"192.0.2.10\", \"10.1.2.0/24\", \"2001:db8::/64\"]";

pub(super) fn proxies(value: &DeValue<'_>) -> Result<Proxies, String> {
    let DeValue::Array(listed) = value else {
        return Err(expected(WHAT, value));
    };
    let listed = listed.iter().map(|one| network(one.get_ref()));
    Ok(Proxies::new(listed.collect::<Result<_, _>>()?))
}

fn network(value: &DeValue<'_>) -> Result<IpNet, String> {
    let text = string(value)?;
    let one = text.parse::<IpAddr>().map(IpNet::from);
    let net = one
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| expected(WHAT, value))?;
    if net.prefix_len() == 0 {
        return Err(format!(
            "{text:?} is every address there is: list those of the load balancers alone"
        ));
    }
    // Such a line reads as one address and means a network, or the other way round.
    if net.addr() != net.network() {
        return Err(format!(
            "{text:?} has bits behind its prefix: write \"{}\" for the network, or \"{}\" for the address",
            net.trunc(),
            net.addr()
        ));
    }
    Ok(net)
}
