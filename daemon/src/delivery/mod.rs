//! How one-time codes and notices leave the daemon: by SMTP, by a signed webhook, or, for
//! development, into a file.
//!
//! Called by `service` through [`Courier`]; started and drained by `startup`. There is one
//! kind of queue and three of them. `lookups` runs the errands of requests that a stranger
//! may make: the request is answered at once and alike, whoever exists; the look-up, the
//! commit and the [`Courier::post`] happen in the errand. Each channel has a queue of its
//! own, so that a mail server that hangs holds up neither look-ups nor the other channel.
//!
//! Where `[courier]` is configured, this process connects to nothing but that one's socket
//! (`by_courier`, `way`), and the program `crate::courier` does with `smtp` and `https` what is
//! otherwise done here.
//!
//! Whoever reads the channel reads the code; the network between is hostile, hence TLS. It
//! must never log an address or a text, tell a requester whether something was sent, or
//! decide whether it may be. Queues live in memory: what a crash loses is asked for again.

mod address;
pub(crate) mod by_courier;
pub(crate) mod https;
mod lane;
mod message;
mod outbox;
mod queue;
pub(crate) mod smtp;
mod trust;
pub(crate) mod way;
mod webhook;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custodyd_hsm::{Pool, RealmName};
use tokio::time::Instant;

pub use self::address::{Address, AddressError, Channel, EmailAddress, PhoneNumber};
use self::lane::Lane;
pub use self::message::{Code, Message, Notice, Purpose};
pub use self::queue::{Errand, Full};
use self::queue::{Queue, Worker};
use self::way::Way;
pub use self::webhook::SIGNATURE;
use crate::clock::Clock;
use crate::config;

/// Carries one message to where its person reads it, or says why not.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// One try. Ends by itself within some seconds; the caller cuts it after half a minute.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn send(&self, message: &Message) -> Result<(), DeliveryError>;
}

/// Why a message was not sent. The text is for the log: it never holds an address, nor what a
/// mail server answered, which often repeats one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeliveryError {
    /// The same may work in a while.
    #[error("not now: {0}")]
    Temporary(String),
    /// This message will never be taken.
    #[error("refused: {0}")]
    Permanent(String),
    /// No message will be taken before the operator does something.
    #[error("{0}; see [delivery] in the configuration")]
    Misconfigured(String),
}

impl DeliveryError {
    /// Without what can be done about it.
    pub(crate) fn reason(&self) -> &str {
        let (Self::Temporary(reason) | Self::Permanent(reason) | Self::Misconfigured(reason)) =
            self;
        reason
    }

    pub(crate) fn map(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Temporary(reason) => Self::Temporary(change(reason)),
            Self::Permanent(reason) => Self::Permanent(change(reason)),
            Self::Misconfigured(reason) => Self::Misconfigured(change(reason)),
        }
    }
}

/// Why something that goes out could not be set up. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("delivery.email.password_file: {0}")]
    Password(#[from] crate::private_file::PrivateFileError),
    #[error("delivery.email.password_file: expected the password on one line of UTF-8")]
    PasswordContent,
    #[error(
        "ca_file {}: expected PEM with the certificates of authorities, found {found}", path.display()
    )]
    Authority { path: PathBuf, found: String },
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{0}")]
    Address(String),
    #[error("{0}")]
    Outbox(#[from] outbox::OutboxError),
    #[error(
        "courier.socket {}: {source}; start `custodyd courier` (systemctl start custodyd-courier.socket)",
        path.display()
    )]
    NoCourier {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Takes messages and errands, without ever waiting.
#[derive(Debug)]
pub struct Courier {
    lookups: Queue,
    email: Option<Lane>,
    sms: Option<Lane>,
}

/// The tasks of a courier, for whoever stops them. Dropping it closes the queues.
#[derive(Debug)]
pub struct Delivering {
    lookups: Worker,
    channels: Vec<Worker>,
}

impl Courier {
    /// Reads the files that the configuration names and starts the queues. Connects nowhere.
    /// To be called inside the runtime.
    ///
    /// # Errors
    /// When a file cannot be read safely or does not hold what it should.
    pub fn start(
        config: &config::Delivery,
        pool: &Pool,
        realm: &RealmName,
        clock: &Arc<Clock>,
    ) -> Result<(Self, Delivering), SetupError> {
        let mut email: Option<Arc<dyn Transport>> = None;
        let mut sms: Option<Arc<dyn Transport>> = None;
        if let Some(path) = &config.outbox {
            let outbox = Arc::new(outbox::Outbox::open(path)?);
            email = Some(Arc::clone(&outbox) as Arc<dyn Transport>);
            sms = Some(outbox);
        }
        let courier = config.courier.as_deref().map(by_courier::Client::new);
        if let Some(settings) = &config.email {
            email = Some(match &courier {
                Some(courier) => Arc::new(courier.clone()),
                None => Arc::new(smtp::Smtp::new(settings, config.concurrency)?),
            });
        }
        if let Some(settings) = &config.sms {
            let signer = webhook::Signer {
                pool: pool.clone(),
                realm: realm.clone(),
                clock: Arc::clone(clock),
            };
            let way = Way::new(courier, &settings.webhook, settings.ca_file.as_deref())?;
            sms = Some(Arc::new(webhook::Webhook::new(settings, way, signer)));
        }
        Ok(Self::with(config.queue, config.concurrency, email, sms))
    }

    /// With transports of the caller's own.
    #[must_use]
    pub fn with(
        capacity: usize,
        concurrency: usize,
        email: Option<Arc<dyn Transport>>,
        sms: Option<Arc<dyn Transport>>,
    ) -> (Self, Delivering) {
        let (lookups, worker) = Queue::start("lookups", capacity, concurrency);
        let mut channels = Vec::new();
        let mut lane = |channel: Channel, transport: Option<Arc<dyn Transport>>| {
            let transport = transport?;
            let (queue, worker) = Queue::start(channel.name(), capacity, concurrency);
            channels.push(worker);
            Some(Lane::new(channel, queue, transport))
        };
        let courier = Self {
            lookups,
            email: lane(Channel::Email, email),
            sms: lane(Channel::Sms, sms),
        };
        let delivering = Delivering {
            lookups: worker,
            channels,
        };
        (courier, delivering)
    }

    /// Whether messages can leave by this channel at all.
    #[must_use]
    pub fn reaches(&self, channel: Channel) -> bool {
        self.lane(channel).is_some()
    }

    /// Whether a message by this channel, or by any, would find room now: to be asked before anything is
    /// counted or committed for it.
    #[must_use]
    pub fn has_room(&self, channel: Option<Channel>) -> bool {
        let room = |lane: Option<&Lane>| lane.is_none_or(Lane::has_room);
        match channel {
            Some(channel) => room(self.lane(channel)),
            None => room(self.email.as_ref()) || room(self.sms.as_ref()),
        }
    }

    /// Runs an errand later: what a request does not wait for.
    ///
    /// # Errors
    /// [`Full`]: say so, it is the same for everybody.
    pub fn run(&self, errand: impl Future<Output = ()> + Send + 'static) -> Result<(), Full> {
        self.lookups.put(Box::pin(errand))
    }

    /// Sends a message later, with some tries. What finds no room or no transport is counted
    /// and lost; the caller must not tell a stranger, who would learn that there was somebody
    /// to write to.
    ///
    /// # Errors
    /// [`Full`].
    pub fn post(&self, message: Message) -> Result<(), Full> {
        let channel = message.to().channel();
        match self.lane(channel) {
            Some(lane) => lane.put(message),
            None => {
                lane::count(channel, "no-transport");
                tracing::warn!(
                    channel = channel.name(),
                    "a message was dropped: no transport for its channel; see [delivery]"
                );
                Ok(())
            }
        }
    }

    fn lane(&self, channel: Channel) -> Option<&Lane> {
        match channel {
            Channel::Email => self.email.as_ref(),
            Channel::Sms => self.sms.as_ref(),
        }
    }
}

impl Delivering {
    /// Accepts nothing more and finishes what it can: the errands first, because they post.
    /// Returns whether nothing was lost.
    pub async fn drain(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut whole = self.lookups.drain(deadline).await;
        let channels = self.channels.into_iter().map(|lane| lane.drain(deadline));
        for finished in futures_util::future::join_all(channels).await {
            whole &= finished;
        }
        whole
    }
}

/// Everything about `[delivery]` that can be judged without connecting or writing, in a few words.
///
/// # Errors
/// As [`Courier::start`].
pub fn check(config: &config::Delivery) -> Result<String, SetupError> {
    let mut words = Vec::new();
    if let Some(email) = &config.email {
        if config.courier.is_none() {
            smtp::builder(email)?;
        }
        words.push(format!("e-mail by {}:{}", email.host, email.port));
    }
    if let Some(sms) = &config.sms {
        let uri = https::address(&sms.webhook)?;
        if config.courier.is_none() {
            https::client(&uri, sms.ca_file.as_deref())?;
        }
        // The host alone: gateways hand out addresses with a key in the path or the query.
        words.push(format!(
            "text messages by {}",
            uri.host().unwrap_or_default()
        ));
    }
    if let Some(path) = &config.outbox {
        words.push(format!("everything into {}", path.display()));
    }
    if words.is_empty() {
        words.push("none is configured: no codes, no notices".to_owned());
    } else if let Some(path) = config
        .courier
        .as_deref()
        .filter(|_| config.outbox.is_none())
    {
        by_courier::Client::new(path).is_there()?;
        words.push(format!("through the courier at {}", path.display()));
    }
    Ok(words.join(", "))
}
