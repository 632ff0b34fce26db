//! One channel: its queue, its transport, and how often a message is tried.
//!
//! Used by `Courier`. A few tries, spread over some seconds and never past the moment when
//! the message has lost its use: a code that has expired only confuses its reader. A plain
//! loop, because two pauses need no crate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::address::Channel;
use super::message::Message;
use super::queue::{Full, Queue};
use super::{DeliveryError, Transport};

/// Before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// For one try, whatever the transport does.
const TRY: Duration = Duration::from_secs(30);

pub(super) struct Lane {
    channel: Channel,
    queue: Queue,
    transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) fn new(channel: Channel, queue: Queue, transport: Arc<dyn Transport>) -> Self {
        Self {
            channel,
            queue,
            transport,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    pub(super) fn put(&self, message: Message) -> Result<(), Full> {
        let (channel, transport) = (self.channel, Arc::clone(&self.transport));
        let put = self.queue.put(Box::pin(async move {
            let outcome = deliver(channel, transport.as_ref(), &message).await;
            count(channel, outcome);
        }));
        if put.is_err() {
            count(channel, "no-room");
        }
        put
    }
}

/// Tries until it is sent, refused, or of no use any more. Returns the outcome for the metrics.
async fn deliver(channel: Channel, transport: &dyn Transport, message: &Message) -> &'static str {
    let mut pauses = PAUSES.iter();
    for attempt in 1_u32.. {
        if Instant::now() >= message.useful_until() {
            break;
        }
        let error = match timeout(TRY, transport.send(message)).await {
            Ok(Ok(())) => return "sent",
            Ok(Err(error)) => error,
            Err(_) => DeliveryError::Temporary(format!("no answer within {} s", TRY.as_secs())),
        };
        tracing::warn!(channel = channel.name(), message = hex::encode(message.id), attempt, %error, "not sent");
        match error {
            DeliveryError::Temporary(_) => {}
            DeliveryError::Permanent(_) => return "refused",
            DeliveryError::Misconfigured(_) => return "misconfigured",
        }
        match pauses.next() {
            Some(pause) => sleep(*pause).await,
            None => break,
        }
    }
    "gave-up"
}

pub(super) fn count(channel: Channel, outcome: &'static str) {
    metrics::counter!("custodyd_deliveries_total", "channel" => channel.name(), "outcome" => outcome)
        .increment(1);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::super::{Address, Code, Courier, Notice, Purpose};
    use super::*;

    type Answer = Result<(), DeliveryError>;

    /// Answers as it was told, then hangs; keeps when it was asked.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<Vec<Answer>>,
        asked: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl Transport for Scripted {
        async fn send(&self, _: &Message) -> Answer {
            self.asked.lock().unwrap().push(Instant::now());
            let next = self.answers.lock().unwrap().pop();
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn scripted(answers: &[Answer]) -> Scripted {
        Scripted {
            answers: Mutex::new(answers.iter().rev().cloned().collect()),
            ..Scripted::default()
        }
    }

    fn code(minutes: u32) -> Message {
        let code = Code {
            code: "1".to_owned().into(),
            link: None,
            expires_minutes: minutes,
            purpose: Purpose::SignIn,
        };
        Message::code("A", Address::email("a@example.com").unwrap(), code).unwrap()
    }

    async fn outcome(answers: &[Answer], minutes: u32) -> (&'static str, Vec<u64>) {
        let transport = scripted(answers);
        let start = Instant::now();
        let outcome = deliver(Channel::Email, &transport, &code(minutes)).await;
        let asked = transport.asked.into_inner().unwrap();
        let seconds = asked.iter().map(|at| (*at - start).as_secs()).collect();
        (outcome, seconds)
    }

    fn later() -> Answer {
        Err(DeliveryError::Temporary("later".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_work_later_is_tried_three_times() {
        assert_eq!(outcome(&[Ok(())], 10).await, ("sent", vec![0]));
        assert_eq!(outcome(&[later(), Ok(())], 10).await, ("sent", vec![0, 2]));
        let thrice = [later(), later(), later(), Ok(())];
        assert_eq!(outcome(&thrice, 10).await, ("gave-up", vec![0, 2, 12]));
        assert_eq!(outcome(&[], 10).await, ("gave-up", vec![0, 32, 72]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_code_is_not_tried_again() {
        assert_eq!(outcome(&[], 1).await, ("gave-up", vec![0, 32]));
        assert_eq!(outcome(&[Ok(())], 0).await, ("gave-up", vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_work_later_is_tried_once() {
        let refused = Err(DeliveryError::Permanent("no".into()));
        assert_eq!(outcome(&[refused], 10).await, ("refused", vec![0]));
        let wrong = Err(DeliveryError::Misconfigured("no".into()));
        assert_eq!(outcome(&[wrong], 10).await, ("misconfigured", vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_channel_holds_up_neither_look_ups_nor_the_other() {
        let (mail, sms) = (Arc::new(scripted(&[])), Arc::new(scripted(&[Ok(())])));
        let (courier, delivering) = Courier::with(2, 1, Some(mail.clone()), Some(sms.clone()));
        courier.post(code(10)).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        courier.post(code(10)).unwrap();
        courier.post(code(10)).unwrap();
        assert_eq!(courier.post(code(10)), Err(Full));
        let phone = Address::phone("+12345678").unwrap();
        let notice = Message::notice("A", phone, Notice::PinReplaced).unwrap();
        let courier = Arc::new(courier);
        let inner = Arc::clone(&courier);
        courier
            .run(async move { inner.post(notice).unwrap() })
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sms.asked.lock().unwrap().len(), 1);
        assert!(!delivering.drain(Duration::from_secs(3)).await);
        assert_eq!(mail.asked.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_runs_the_errands_and_then_what_they_posted() {
        let mail = Arc::new(scripted(&[Ok(()), Ok(())]));
        let (courier, delivering) = Courier::with(8, 1, Some(mail.clone()), None);
        assert!(courier.reaches(Channel::Email) && !courier.reaches(Channel::Sms));
        let courier = Arc::new(courier);
        for _ in 0..2 {
            let inner = Arc::clone(&courier);
            courier
                .run(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    inner.post(code(10)).unwrap();
                })
                .unwrap();
        }
        assert!(delivering.drain(Duration::from_secs(5)).await);
        assert_eq!(mail.asked.lock().unwrap().len(), 2);
        assert!(courier.run(async {}).is_err());
        // Without a transport a message is counted and lost, and the caller sees no difference.
        let phone = Address::phone("+12345678").unwrap();
        let notice = Message::notice("A", phone, Notice::PinReplaced).unwrap();
        assert_eq!(courier.post(notice), Ok(()));
    }
}
