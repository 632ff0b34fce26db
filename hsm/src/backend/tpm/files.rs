//! Small files in the state directory that have to be there after a loss of power, and to be whole.
//!
//! For the parent's modules. Nothing in such a file is believed because it lies there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Durable when it returns. A crash before may leave a part of it.
pub(super) fn write(directory: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(directory.join(name))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// The new one in the place of the old one, durably: one of the two is there at every moment.
pub(super) fn rename(directory: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(directory.join(from), directory.join(to))?;
    File::open(directory)?.sync_all()
}

/// All of it, or nothing.
pub(super) fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    write(directory, Path::new(&new), bytes)?;
    rename(directory, &new, name)
}
