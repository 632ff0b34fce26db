//! Recoveries that come alone: a new connection for each, with a whole handshake, as of a device that is unlocked once
//! a day. Of the daemon's accounts; `tang` has the same for Tang.

use std::sync::Arc;
use std::time::{Duration, Instant};

use custodyd_tests::{Device, TestApp};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::load::Member;
use crate::workers::Connected;

/// The secret that the policy releases to a bound device alone.
const DEVICE_SECRET: &str = "app-key";

/// Makes clients that never resume a session.
#[derive(Clone, Debug)]
pub(crate) struct Fresh(ClientConfig);

impl Fresh {
    pub(crate) fn new(authority: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self(config)
    }

    /// Its first request opens a connection; a second one soon after it goes over the same.
    pub(crate) fn client(&self) -> reqwest::Client {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(self.0.clone());
        builder.build().unwrap()
    }
}

/// One of the daemon's accounts.
pub(crate) struct Caller {
    member: Member,
    fresh: Fresh,
    /// One that stays.
    kept: reqwest::Client,
}

impl Caller {
    pub(crate) async fn enrolled(app: &TestApp, fresh: &Fresh, kept: &reqwest::Client) -> Self {
        let mut device = app.device("notes");
        device.http = kept.clone();
        let mut member = Member::enrolled(device, None).await;
        let device = &mut member.device;
        device.back_up(DEVICE_SECRET, &[7; 32]).await.expect(200);
        Self {
            member,
            fresh: fresh.clone(),
            kept: kept.clone(),
        }
    }

    pub(crate) async fn by_passkey(&mut self) -> Duration {
        self.member.device.http = self.fresh.client();
        self.member.passkey().await
    }

    /// What asks as little of its caller as anything here does: the device key alone, in one request.
    pub(crate) async fn by_device(&mut self) -> Duration {
        self.member.device.http = self.fresh.client();
        by_device(&mut self.member.device).await
    }

    /// The same on the connection that stays.
    pub(crate) async fn by_device_again(&mut self) -> Duration {
        self.member.device.http = self.kept.clone();
        by_device(&mut self.member.device).await
    }
}

impl Connected for Caller {
    fn connection(&self) -> (reqwest::Client, String) {
        let (_, url) = self.member.connection();
        (self.kept.clone(), url)
    }
}

async fn by_device(device: &mut Device) -> Duration {
    let started = Instant::now();
    let answer = device.try_device(&[DEVICE_SECRET]).await.expect(201);
    let took = started.elapsed();
    let secret = &answer.body["secrets"][DEVICE_SECRET]["server_slot"];
    assert!(secret.is_string(), "{}", answer.body);
    took
}
