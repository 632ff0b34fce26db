//! What is measured once, after the rounds: strangers' times, and passkeys under a flood of PINs.

use std::thread;
use std::time::Duration;

use custodyd_tests::TestApp;
use tokio::runtime::Runtime;

use crate::load::Crowd;
use crate::report::Figure;
use crate::statistics::{Compared, quantile};
use crate::strangers;

/// Alone and flooded in turn, so often, so long each.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
/// The flood begins this long before anything is measured.
const AHEAD: Duration = Duration::from_millis(300);
/// Clients that recover by passkey meanwhile: few enough to wait for the server alone.
const CLIENTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Extra {
    timing: Compared,
    pin_timing: Compared,
    alone: Vec<f64>,
    flooded: Vec<f64>,
    /// PINs of bound devices and of strangers, evaluated while it lasted.
    flood: [usize; 2],
}

impl Extra {
    pub(crate) fn measured(runtime: &Runtime, app: &TestApp, crowd: &mut Crowd) -> Self {
        println!("strangers ...");
        let timing = strangers::timing(runtime, app, crowd);
        let pin_timing = strangers::pin_timing(runtime, app);
        println!("passkeys under a flood of PINs ...");
        let mut clients = Crowd::of(app, CLIENTS);
        let (mut alone, mut flooded, mut flood) = (Vec::new(), Vec::new(), [0, 0]);
        for _ in 0..TURNS {
            alone.extend(clients.passkey_latencies(TURN));
            let lasting = AHEAD + TURN;
            thread::scope(|scope| {
                let bound = scope.spawn(|| crowd.flood(lasting));
                let unknown = scope.spawn(|| strangers::flood(runtime, app, lasting));
                thread::sleep(AHEAD);
                flooded.extend(clients.passkey_latencies(TURN));
                flood[0] += bound.join().unwrap();
                flood[1] += unknown.join().unwrap();
            });
        }
        alone.sort_by(f64::total_cmp);
        flooded.sort_by(f64::total_cmp);
        Self {
            timing,
            pin_timing,
            alone,
            flooded,
            flood,
        }
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        let p99 = |times: &[f64]| quantile(times, 0.99);
        let ratio = p99(&self.flooded) / p99(&self.alone);
        let ms = |name, value, note| Figure::new(name, value, "ms", note);
        let (timing, pin) = (&self.timing, &self.pin_timing);
        let apart = |of: &Compared| of.one[1] - of.other[1];
        vec![
            Figure::new(
                "passkey_p99_under_pin_flood",
                ratio,
                "ratio",
                "aim: at most 2",
            )
            .beside("passkey_p99_alone", ratio),
            ms("passkey_p99_alone", p99(&self.alone), "4 clients"),
            ms("passkey_p99_flooded", p99(&self.flooded), "the same 4"),
            Figure::new(
                "stranger_timing_ks",
                timing.distance,
                "D",
                "aim: at most its threshold",
            )
            .beside(
                "stranger_timing_ks_1_percent",
                timing.distance / timing.threshold,
            ),
            Figure::new("stranger_timing_ks_1_percent", timing.threshold, "D", ""),
            ms(
                "stranger_timing_p50_apart",
                apart(timing),
                "known less unknown",
            ),
            ms(
                "stranger_timing_visible",
                timing.visible,
                "a delay it would see",
            ),
            Figure::new(
                "stranger_pin_timing_ks",
                pin.distance,
                "D",
                "aim: at most its threshold",
            )
            .beside(
                "stranger_pin_timing_ks_1_percent",
                pin.distance / pin.threshold,
            ),
            Figure::new("stranger_pin_timing_ks_1_percent", pin.threshold, "D", ""),
            ms(
                "stranger_pin_timing_p50_apart",
                apart(pin),
                "known less unknown",
            ),
            ms(
                "stranger_pin_timing_visible",
                pin.visible,
                "a delay it would see",
            ),
        ]
    }

    pub(crate) fn table(&self) {
        let seconds = (TURN + AHEAD).as_secs_f64() * TURNS as f64;
        let [bound, strangers] = self.flood.map(|count| count as f64 / seconds);
        println!(
            "\nThe flood: {bound:.0} PINs of bound devices and {strangers:.0} of strangers a second; \
             {} passkey recoveries alone, {} in it.",
            self.alone.len(),
            self.flooded.len()
        );
        println!("\nA stranger's wait, in milliseconds:      p1       p50       p99");
        for (what, compared) in [
            ("PIN not evaluated", &self.timing),
            ("PIN evaluated", &self.pin_timing),
        ] {
            for (kind, of) in [("known", &compared.one), ("unknown", &compared.other)] {
                let [p1, p50, p99] = of;
                println!("{what:<20}{kind:<12}{p1:>10.2}{p50:>10.2}{p99:>10.2}");
            }
            let Compared {
                distance,
                threshold,
                visible,
                samples,
                ..
            } = compared;
            let verdict = if distance > threshold {
                "differ"
            } else {
                "no difference"
            };
            println!(
                "{:<20}D = {distance:.4} of {samples} samples, 1 % threshold {threshold:.4}: {verdict}; \
                 a delay of {visible:.2} ms would show",
                ""
            );
        }
    }
}
