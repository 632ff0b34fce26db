//! Somebody between the daemon and the TPM: hears everything, and answers in its place.

use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use custodyd_tests::tpm::SwTpm;

/// The command codes of Part 2 of the TPM 2.0 Library Specification, section 6.5.2.
pub(crate) const NV_EXTEND: u32 = 0x136;
pub(crate) const SIGN: u32 = 0x15d;

/// What happens to a command.
#[derive(Clone, Copy)]
pub(crate) enum Told {
    /// The TPM answers.
    Pass,
    /// The TPM never hears of it; this response code is the answer.
    Instead(u32),
    /// The TPM does it, and this response code is the answer.
    After(u32),
}

/// By the command's code.
type Answer = dyn FnMut(u32) -> Told + Send;

pub(crate) struct Bus {
    pub(crate) tcti: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Bus {
    pub(crate) fn between(tpm: &SwTpm, answer: impl FnMut(u32) -> Told + Send + 'static) -> Self {
        let at = tpm.dir().join("bus");
        let listener = UnixListener::bind(&at).unwrap();
        symlink(tpm.dir().join("s.ctrl"), tpm.dir().join("bus.ctrl")).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (to, all) = (tpm.dir().join("s"), Arc::clone(&heard));
        let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(answer)));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (to, all, answer) = (to.clone(), Arc::clone(&all), Arc::clone(&answer));
                thread::spawn(move || carry(client.unwrap(), &to, &all, &answer));
            }
        });
        Self {
            tcti: format!("swtpm:path={}", at.display()),
            heard,
        }
    }

    pub(crate) fn heard(&self, bytes: &[u8]) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Commands of one connection to the TPM and back, until somebody hangs up.
fn carry(
    mut client: UnixStream,
    to: &Path,
    all: &Mutex<Vec<u8>>,
    answer: &Mutex<Box<Answer>>,
) -> Option<()> {
    let mut tpm: Option<UnixStream> = None;
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        all.lock().unwrap().extend_from_slice(&command);
        let told = answer.lock().unwrap()(code);
        let mut ask = || {
            let tpm = tpm.get_or_insert_with(|| connect(to));
            tpm.write_all(&command).ok()?;
            message(tpm)
        };
        let response = match told {
            Told::Pass => ask()?,
            Told::Instead(code) => refusal(code),
            Told::After(code) => ask().map(|_| refusal(code))?,
        };
        all.lock().unwrap().extend_from_slice(&response);
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
