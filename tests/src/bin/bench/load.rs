//! The clients: accounts with a passkey, a PIN and a backed-up secret, and who recovers it.
//!
//! Each worker is a thread with a connection and accounts of its own: an account is never
//! used by two at once. A client waits for its answer before it asks again, so the number of
//! workers is the concurrency.

use std::thread;
use std::time::{Duration, Instant};

use custodyd_tests::{Device, SoftAuthenticator, TestApp};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::cpu::{Sample, sample};

const WORKERS: usize = 16;
const EACH: usize = 13;
/// So many enrol at the same time: of more the daemon would refuse some.
const AT_ONCE: usize = 32;
pub(crate) const ACCOUNTS: usize = WORKERS * EACH;
/// An account answers at most 64 ceremonies within their five minutes.
const CEREMONIES: usize = 60;
/// Of each worker, where there are a thousand accounts altogether.
const EACH_OF_A_THOUSAND: usize = 63;
pub(crate) const A_THOUSAND: usize = WORKERS * EACH_OF_A_THOUSAND;
pub(crate) const PIN: &str = "583926";
pub(crate) const SECRET: &str = "device-secret";

/// A load, and how long each of its recoveries took, in milliseconds.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) sample: Sample,
    pub(crate) latencies: Vec<f64>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) device: Device,
    authenticator: SoftAuthenticator,
    ceremonies: usize,
}

/// What came of a recovery that may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    Refused,
}

/// One connection and its accounts.
#[derive(Debug)]
pub(crate) struct Worker {
    runtime: Runtime,
    members: Vec<Member>,
    next: usize,
}

#[derive(Debug)]
pub(crate) struct Crowd(Vec<Worker>);

/// What a worker does again and again.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Passkey,
    Pin,
    Tls,
}

/// How long a worker does so.
#[derive(Debug, Clone, Copy)]
enum Span {
    For(Duration),
    /// Once for each of its accounts.
    Once,
}

/// Longer than that no pass over the accounts takes.
const A_PASS: Duration = Duration::from_secs(600);

impl Crowd {
    pub(crate) fn enrolled(app: &TestApp) -> Self {
        Self::of(app, WORKERS)
    }

    /// So many clients, with as many accounts each.
    pub(crate) fn of(app: &TestApp, workers: usize) -> Self {
        Self::with(app, workers, EACH, Some(PIN))
    }

    /// A thousand accounts without a PIN: a thousand evaluations of Argon2id take their time.
    pub(crate) fn of_a_thousand(app: &TestApp) -> Self {
        Self::with(app, WORKERS, EACH_OF_A_THOUSAND, None)
    }

    /// Few enough to be enrolled on a slow token, and enough for some seconds of recoveries.
    pub(crate) fn of_a_few(app: &TestApp) -> Self {
        Self::with(app, WORKERS, 8, None)
    }

    /// Many clients, each with accounts enough for some minutes.
    pub(crate) fn of_many(app: &TestApp, workers: usize) -> Self {
        Self::with(app, workers, 4, None)
    }

    /// Each client by itself, for whoever has a pace of their own.
    pub(crate) fn clients(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.0.iter_mut()
    }

    fn with(app: &TestApp, workers: usize, each: usize, pin: Option<&str>) -> Self {
        let mut crowd = Vec::with_capacity(workers);
        while crowd.len() < workers {
            let some = (workers - crowd.len()).min(AT_ONCE);
            thread::scope(|scope| {
                let some: Vec<_> = (0..some)
                    .map(|_| scope.spawn(|| Worker::enrolled(app, each, pin)))
                    .collect();
                crowd.extend(some.into_iter().map(|worker| worker.join().unwrap()));
            });
        }
        Self(crowd)
    }

    pub(crate) fn passkeys(&mut self, server: u32, lasting: Duration) -> Measured {
        self.run(server, Span::For(lasting), Kind::Passkey)
    }

    /// One recovery of each account.
    pub(crate) fn passkeys_once(&mut self, server: u32) -> Measured {
        self.run(server, Span::Once, Kind::Passkey)
    }

    pub(crate) fn pins(&mut self, server: u32, lasting: Duration) -> Measured {
        self.run(server, Span::For(lasting), Kind::Pin)
    }

    /// The cheapest request over the same connections: TLS, HTTP, a short public answer.
    pub(crate) fn tls(&mut self, server: u32, lasting: Duration) -> Sample {
        self.run(server, Span::For(lasting), Kind::Tls).sample
    }

    /// Every account there is, by its identifier.
    pub(crate) fn accounts(&self) -> Vec<String> {
        let members = self.0.iter().flat_map(|worker| &worker.members);
        members
            .map(|member| member.device.account.clone())
            .collect()
    }

    /// Milliseconds of each passkey recovery, nothing else being measured.
    pub(crate) fn passkey_latencies(&mut self, lasting: Duration) -> Vec<f64> {
        self.each(Span::For(Duration::ZERO), Kind::Tls);
        self.each(Span::For(lasting), Kind::Passkey)
    }

    /// PIN sign-ins without a pause; how many there were.
    pub(crate) fn flood(&mut self, lasting: Duration) -> usize {
        self.each(Span::For(Duration::ZERO), Kind::Tls);
        self.each(Span::For(lasting), Kind::Pin).len()
    }

    fn run(&mut self, server: u32, span: Span, kind: Kind) -> Measured {
        // A connection may have been closed while other parts ran: open it off the clock.
        self.each(Span::For(Duration::ZERO), Kind::Tls);
        let mut latencies = Vec::new();
        let sample = sample(server, || {
            latencies = self.each(span, kind);
            latencies.len() as f64
        });
        Measured { sample, latencies }
    }

    fn each(&mut self, span: Span, kind: Kind) -> Vec<f64> {
        let end = match span {
            Span::For(lasting) => Instant::now() + lasting,
            Span::Once => Instant::now() + A_PASS,
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (self.0.iter_mut())
                .map(|worker| scope.spawn(move || worker.repeat(span, end, kind)))
                .collect();
            let latencies = threads.into_iter().flat_map(|t| t.join().unwrap());
            latencies.collect()
        })
    }
}

impl Worker {
    fn enrolled(app: &TestApp, each: usize, pin: Option<&str>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut members: Vec<Member> = Vec::with_capacity(each);
        for _ in 0..each {
            let mut device = app.device("notes");
            if let Some(first) = members.first() {
                device.http = first.device.http.clone();
            }
            members.push(runtime.block_on(Member::enrolled(device, pin)));
        }
        Self {
            runtime,
            members,
            next: 0,
        }
    }

    /// A passkey recovery, which may be refused where there is too much to do.
    pub(crate) fn attempt(&mut self) -> Outcome {
        let all = self.members.len();
        let member = &mut self.members[self.next % all];
        self.next += 1;
        self.runtime.block_on(member.attempt())
    }

    /// At least once, and until the time is over; milliseconds of each.
    fn repeat(&mut self, span: Span, end: Instant, kind: Kind) -> Vec<f64> {
        let mut latencies = Vec::new();
        let most = match span {
            Span::For(_) => usize::MAX,
            Span::Once => self.members.len(),
        };
        while latencies.is_empty() || (Instant::now() < end && latencies.len() < most) {
            let all = self.members.len();
            let member = &mut self.members[self.next % all];
            self.next += 1;
            if matches!(kind, Kind::Passkey) && member.ceremonies >= CEREMONIES {
                break;
            }
            let took = self.runtime.block_on(async {
                match kind {
                    Kind::Passkey => member.passkey().await,
                    Kind::Pin => member.pin().await,
                    Kind::Tls => member.tls().await,
                }
            });
            latencies.push(took.as_secs_f64() * 1e3);
        }
        latencies
    }
}

impl Member {
    pub(crate) async fn enrolled(mut device: Device, pin: Option<&str>) -> Self {
        device.enrol().await;
        if let Some(pin) = pin {
            device.set_pin(pin).await.expect(200);
        }
        let mut authenticator = SoftAuthenticator::new("notes");
        device.add_passkey(&mut authenticator).await.expect(201);
        device.back_up(SECRET, &[7; 32]).await.expect(200);
        Self {
            device,
            authenticator,
            ceremonies: 0,
        }
    }

    /// Options and login with release. What the authenticator takes between the two is not
    /// the service's time.
    pub(crate) async fn passkey(&mut self) -> Duration {
        self.ceremonies += 1;
        self.device.token = None;
        let started = Instant::now();
        let path = "/v1/apps/{app}/sessions/passkey/options";
        let body = Some(json!({"account": null}));
        let options = self.device.call("POST", path, body).await.expect(200).body;
        let asked = started.elapsed();
        let credential = self.authenticator.get(&options["publicKey"]).await;
        let body = json!({"ceremony": options["ceremony"], "credential": credential,
            "release": [SECRET]});
        let started = Instant::now();
        let answer = self.device.finish_passkey(body).await.expect(201);
        let took = asked + started.elapsed();
        check(&answer.body);
        took
    }

    async fn attempt(&mut self) -> Outcome {
        self.device.token = None;
        let path = "/v1/apps/{app}/sessions/passkey/options";
        let body = Some(json!({"account": null}));
        let options = self.device.call("POST", path, body).await;
        if options.status == 503 {
            return Outcome::Refused;
        }
        let options = options.expect(200).body;
        let credential = self.authenticator.get(&options["publicKey"]).await;
        let body = json!({"ceremony": options["ceremony"], "credential": credential,
            "release": [SECRET]});
        let answer = self.device.finish_passkey(body).await;
        if answer.status == 503 {
            return Outcome::Refused;
        }
        check(&answer.expect(201).body);
        Outcome::Served
    }

    pub(crate) async fn pin(&mut self) -> Duration {
        let started = Instant::now();
        let answer = self.device.try_pin(PIN, &[SECRET]).await.expect(201);
        let took = started.elapsed();
        check(&answer.body);
        took
    }

    async fn tls(&mut self) -> Duration {
        let started = Instant::now();
        let url = format!("{}/.well-known/jwks.json", self.device.url);
        let answer = match self.device.http.get(&url).send().await {
            Ok(answer) => answer,
            // The daemon has been started anew since.
            Err(_) => self.device.http.get(url).send().await.unwrap(),
        };
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        started.elapsed()
    }
}

/// A recovery that brought no secret would be fast and worth nothing.
pub(crate) fn check(answer: &Value) {
    assert!(answer["secrets"][SECRET]["server_slot"].is_string());
}
