# demo and test install what is missing first. See scripts/ for what each step does.
.PHONY: demo test test-postgres bench lint clean deb

# A development daemon under ./demo-data, with a tour; stays up until Ctrl-C.
demo:
	@scripts/demo

# Everything that is checked before a change goes in.
test:
	@scripts/test

# All tests once more with databases on PostgreSQL servers; the gate does that with a part of them.
test-postgres:
	@scripts/test postgres

# Prints figures and writes target/bench/figures.json. A release build: takes a while.
bench:
	@scripts/ensure-tools bench
	@scripts/cargo build --release --workspace --bins --locked
	@scripts/cargo run --release --package custodyd-tests --bin bench --locked

lint:
	@scripts/ensure-tools test
	@scripts/lint

# What make made inside this folder; the installed packages stay.
clean:
	@scripts/clean

# The Debian package, in target/debian.
deb:
	@scripts/ensure-tools test
	@scripts/deb
