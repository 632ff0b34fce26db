//! The header that a load balancer puts before a connection to say whose it is (HAProxy's PROXY protocol, version 2).
//!
//! Called by `server`, before the handshake, on a listener that is configured for it. A balancer that passes TCP on
//! hides its clients behind its own address, and rates by address would then punish all for one. What it says is
//! believed because of where it comes from, and nothing else: so only from the addresses that the configuration lists;
//! one of these must send it, or a balancer that was set up wrong would make one client of all; and from any other
//! address it is no TLS. Whoever may send it may choose an address, and so escape rates or use up another's; nothing more,
//! because nothing is allowed because of an address.
//!
//! TLS stays between client and daemon: the header comes in the clear before it, and none of its bytes is read as TLS.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What every header has: signature, version, command, family, and the length of the rest.
const FIXED: usize = 16;
const SIGNATURE: &[u8] = ppp::v2::PROTOCOL_PREFIX;
/// Addresses are 36 bytes at most; what else balancers tell is skipped. Some send certificates' names and identifiers.
const MOST: usize = 1024;

/// Who may say whose a connection is: `listen.proxy_protocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

/// Why a connection of a listed address was refused, for an operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error(
        "it does not begin with a header of the PROXY protocol, version 2: have the balancer send one (HAProxy: \
         send-proxy-v2), or take its address out of listen.proxy_protocol"
    )]
    Missing,
    #[error("its header has {0} bytes of addresses and extensions; at most {MOST} are read")]
    TooLong(usize),
    #[error("its header does not parse: {0}")]
    Malformed(#[from] ppp::v2::ParseError),
    #[error("its header names no TCP connection over IPv4 or IPv6: whose it is can not be known")]
    NoAddress,
    #[error("the connection ended within its header ({0})")]
    Cut(#[from] std::io::Error),
}

impl Proxies {
    #[must_use]
    pub fn new(listed: Vec<IpNet>) -> Self {
        Self(listed)
    }

    /// Whether a connection from there has to begin with a header.
    pub(crate) fn lists(&self, peer: IpAddr) -> bool {
        // A listener for both families shows IPv4 addresses within IPv6.
        let peer = peer.to_canonical();
        self.0.iter().any(|net| net.contains(&peer))
    }
}

/// Whose connection this is, by the header before it; the proxy's own, where that only looks whether we are there.
/// Reads the header and no byte more. The caller bounds the time.
///
/// # Errors
/// Where there is none, or none that says so: then the connection is to be closed.
pub(super) async fn told(
    stream: &mut (impl AsyncRead + Unpin),
    proxy: SocketAddr,
) -> Result<SocketAddr, HeaderError> {
    let mut bytes = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes != SIGNATURE {
        return Err(HeaderError::Missing);
    }
    bytes.resize(FIXED, 0);
    let (_, rest) = bytes.split_at_mut(SIGNATURE.len());
    stream.read_exact(rest).await?;
    let length = match *rest {
        [_, _, high, low] => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    if length > MOST {
        return Err(HeaderError::TooLong(length));
    }
    bytes.resize(FIXED + length, 0);
    let (_, rest) = bytes.split_at_mut(FIXED);
    stream.read_exact(rest).await?;
    source(&Header::try_from(bytes.as_slice())?, proxy)
}

fn source(header: &Header<'_>, proxy: SocketAddr) -> Result<SocketAddr, HeaderError> {
    match (header.command, header.protocol, &header.addresses) {
        // A connection of the proxy's own, such as its checks of health.
        (Command::Local, ..) => Ok(proxy),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(told)) => {
            Ok(SocketAddr::from((told.source_address, told.source_port)))
        }
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(told)) => {
            Ok(SocketAddr::from((told.source_address, told.source_port)))
        }
        // To count these as the proxy's would make one client of all of them.
        _ => Err(HeaderError::NoAddress),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test
mod tests {
    use ppp::v2::{Builder, IPv4, IPv6, Version};
    use proptest::prelude::*;

    use super::*;

    fn proxy() -> SocketAddr {
        "10.0.0.1:7".parse().unwrap()
    }

    fn header(command: Command, protocol: Protocol, addresses: Addresses) -> Vec<u8> {
        Builder::with_addresses(Version::Two | command, protocol, addresses)
            .build()
            .unwrap()
    }

    fn of_client() -> Vec<u8> {
        let told = IPv4::new([192, 0, 2, 7], [198, 51, 100, 1], 4711, 443);
        header(Command::Proxy, Protocol::Stream, told.into())
    }

    /// What is made of these bytes, and how many of them were not read.
    fn read(mut bytes: &[u8]) -> (Result<SocketAddr, HeaderError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let told = runtime.block_on(told(&mut bytes, proxy()));
        (told, bytes.len())
    }

    #[test]
    fn a_client_of_either_family_is_told_and_what_follows_is_left() {
        let mut bytes = of_client();
        bytes.extend_from_slice(b"\x16\x03\x01");
        let (told, left) = read(&bytes);
        assert_eq!(told.unwrap(), "192.0.2.7:4711".parse().unwrap());
        assert_eq!(left, 3);
        let source: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        let told = IPv6::new(source, std::net::Ipv6Addr::LOCALHOST, 4711, 443);
        let bytes = header(Command::Proxy, Protocol::Stream, told.into());
        assert_eq!(
            read(&bytes).0.unwrap(),
            "[2001:db8::7]:4711".parse().unwrap()
        );
    }

    #[test]
    fn what_else_a_balancer_tells_is_skipped_up_to_a_bound() {
        let mut bytes = of_client();
        let extension = |length: u16| {
            let mut extension = vec![0xe2];
            extension.extend_from_slice(&length.to_be_bytes());
            extension.resize(3 + usize::from(length), b'x');
            extension
        };
        let with = |bytes: &[u8], length: u16| {
            let mut bytes = [bytes, &extension(length)].concat();
            let total = u16::try_from(bytes.len() - FIXED).unwrap();
            bytes[14..16].copy_from_slice(&total.to_be_bytes());
            bytes
        };
        let long = with(&bytes, 1000);
        let (told, left) = read(&long);
        assert_eq!((told.unwrap().port(), left), (4711, 0));
        bytes = with(&bytes, 1010);
        let (told, left) = read(&bytes);
        assert!(matches!(told, Err(HeaderError::TooLong(1025))), "{told:?}");
        assert_eq!(left, 1025, "nothing of it is waited for");
    }

    #[test]
    fn a_proxys_own_connection_is_its_own() {
        let bytes = header(
            Command::Local,
            Protocol::Unspecified,
            Addresses::Unspecified,
        );
        assert_eq!(bytes.len(), FIXED);
        assert_eq!(read(&bytes).0.unwrap(), proxy());
    }

    #[test]
    fn a_client_that_has_no_address_is_refused() {
        let unix = ppp::v2::Unix::new([1; 108], [2; 108]);
        let udp = IPv4::new([192, 0, 2, 7], [198, 51, 100, 1], 4711, 443);
        for bytes in [
            header(Command::Proxy, Protocol::Stream, unix.into()),
            header(Command::Proxy, Protocol::Datagram, udp.into()),
            header(
                Command::Proxy,
                Protocol::Unspecified,
                Addresses::Unspecified,
            ),
        ] {
            let (told, _) = read(&bytes);
            assert!(matches!(told, Err(HeaderError::NoAddress)), "{told:?}");
        }
    }

    #[test]
    fn no_header_and_an_older_one_are_named() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00"[..],
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let (told, _) = read(bytes);
            assert!(matches!(told, Err(HeaderError::Missing)), "{told:?}");
            assert!(told.unwrap_err().to_string().contains("send-proxy-v2"));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused_or_read_as_what_it_says() {
        let whole = of_client();
        for cut in 0..whole.len() {
            let (told, _) = read(&whole[..cut]);
            assert!(matches!(told, Err(HeaderError::Cut(_))), "{cut}: {told:?}");
        }
        for at in 0..FIXED {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let (Ok(told), _) = read(&bytes) {
                    // Only as the proxy's own, or with fewer extensions than none: not as another client.
                    assert!(told == proxy(), "{at} {bit}: {told}");
                }
            }
        }
    }

    #[test]
    fn addresses_are_listed_by_network_and_alike_in_both_families() {
        let listed = ["10.0.0.0/8", "2001:db8::/32"];
        let proxies = Proxies::new(listed.iter().map(|net| net.parse().unwrap()).collect());
        let lists = |address: &str| proxies.lists(address.parse().unwrap());
        assert!(lists("10.255.0.1") && lists("::ffff:10.0.0.1") && lists("2001:db8::1"));
        assert!(!lists("11.0.0.1") && !lists("::ffff:11.0.0.1") && !lists("2001:db9::1"));
        assert!(!Proxies::default().lists("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_within_the_bound(
            begins in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let bytes = if begins { [SIGNATURE, &bytes].concat() } else { bytes };
            let (told, left) = read(&bytes);
            prop_assert!(bytes.len() - left <= FIXED + MOST);
            if told.is_ok() {
                prop_assert!(bytes.starts_with(SIGNATURE));
            }
        }

        /// What another implementation writes is read as what it meant.
        #[test]
        fn each_address_is_told_as_it_was_written(
            v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), port in any::<u16>(), six in any::<bool>(),
        ) {
            let (addresses, meant): (Addresses, IpAddr) = if six {
                (IPv6::new(v6, [0; 16], port, 443).into(), v6.into())
            } else {
                (IPv4::new(v4, [0; 4], port, 443).into(), v4.into())
            };
            let bytes = header(Command::Proxy, Protocol::Stream, addresses);
            prop_assert_eq!(read(&bytes).0.unwrap(), SocketAddr::new(meant, port));
        }
    }
}
