//! Somebody between the daemon and the TPM: hears everything, and answers in its place.

use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use custodyd_tests::tpm::SwTpm;

/// The command codes of Part 2 of the TPM 2.0 Library Specification, section 6.5.2.
pub(crate) const EVICT_CONTROL: u32 = 0x120;
pub(crate) const NV_EXTEND: u32 = 0x136;
pub(crate) const SIGN: u32 = 0x15d;
pub(crate) const START_AUTH_SESSION: u32 = 0x176;

/// What happens to a command.
#[derive(Clone, Copy)]
pub(crate) enum Told {
    /// The TPM answers.
    Pass,
    /// The TPM never hears of it; this response code is the answer.
    Instead(u32),
    /// The TPM does it, and this response code is the answer.
    After(u32),
    /// Nothing happens before the bus is told to let go; then the TPM answers.
    Held,
    /// The TPM answers after so long.
    Late(Duration),
}

/// By the command's code.
type Answer = dyn FnMut(u32) -> Told + Send;

pub(crate) struct Bus {
    pub(crate) tcti: String,
    inside: Arc<Inside>,
}

struct Inside {
    heard: Mutex<Vec<u8>>,
    answer: Mutex<Box<Answer>>,
    /// What is held is let go.
    goes_on: AtomicBool,
}

/// The way on to the TPM: of one connection, or of all of them, as a resource manager has it.
type Way = Arc<Mutex<Option<UnixStream>>>;

impl Bus {
    pub(crate) fn between(tpm: &SwTpm, answer: impl FnMut(u32) -> Told + Send + 'static) -> Self {
        Self::carrying(tpm, answer, Way::default)
    }

    /// As a resource manager: many connections to one TPM, which one of them does not take for itself.
    pub(crate) fn managing(tpm: &SwTpm, answer: impl FnMut(u32) -> Told + Send + 'static) -> Self {
        let one = Way::default();
        Self::carrying(tpm, answer, move || Arc::clone(&one))
    }

    fn carrying(
        tpm: &SwTpm,
        answer: impl FnMut(u32) -> Told + Send + 'static,
        way: impl Fn() -> Way + Send + 'static,
    ) -> Self {
        let at = tpm.dir().join("bus");
        let listener = UnixListener::bind(&at).unwrap();
        symlink(tpm.dir().join("s.ctrl"), tpm.dir().join("bus.ctrl")).unwrap();
        let inside = Arc::new(Inside {
            heard: Mutex::default(),
            answer: Mutex::new(Box::new(answer)),
            goes_on: AtomicBool::new(false),
        });
        let (to, carried) = (tpm.dir().join("s"), Arc::clone(&inside));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (to, inside, way) = (to.clone(), Arc::clone(&carried), way());
                thread::spawn(move || carry(client.unwrap(), &to, &inside, &way));
            }
        });
        Self {
            tcti: format!("swtpm:path={}", at.display()),
            inside,
        }
    }

    /// Whatever is held goes on to the TPM, now and later.
    pub(crate) fn lets_go(&self) {
        self.inside.goes_on.store(true, Ordering::SeqCst);
    }

    pub(crate) fn heard(&self, bytes: &[u8]) -> bool {
        let heard = self.inside.heard.lock().unwrap();
        heard.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Commands of one connection to the TPM and back, until somebody hangs up.
fn carry(mut client: UnixStream, to: &Path, inside: &Inside, way: &Way) -> Option<()> {
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        inside.heard.lock().unwrap().extend_from_slice(&command);
        let told = inside.answer.lock().unwrap()(code);
        let ask = || {
            let mut way = way.lock().unwrap();
            let tpm = way.get_or_insert_with(|| connect(to));
            tpm.write_all(&command).ok()?;
            message(tpm)
        };
        let response = match told {
            Told::Pass => ask()?,
            Told::Late(by) => {
                thread::sleep(by);
                ask()?
            }
            Told::Instead(code) => refusal(code),
            Told::After(code) => ask().map(|_| refusal(code))?,
            Told::Held => {
                while !inside.goes_on.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(2));
                }
                ask()?
            }
        };
        inside.heard.lock().unwrap().extend_from_slice(&response);
        client.write_all(&response).ok()?;
    }
}

/// A response without anything but its code.
fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

fn connect(to: &Path) -> UnixStream {
    UnixStream::connect(to).unwrap()
}

/// A tag, the length of the whole, a code, and the rest.
fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut message[10..]).ok()?;
    Some(message)
}
