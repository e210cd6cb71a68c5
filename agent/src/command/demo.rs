//! `rtlive demo`: everything on one machine.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rtlive_drivers::outlet::Clock;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::run::Signals;
use super::{Failure, load};
use crate::cli::Demo;
use crate::clock::SystemClock;
use crate::demo::account::Account;
use crate::demo::broker::{self, Subscription};
use crate::demo::cable::Cable;
use crate::demo::device;
use crate::demo::keys::Keys;
use crate::demo::screen::Screen;
use crate::demo::subscriber::Subscriber;
use crate::pipeline::Pipeline;

/// How long an outage by the key lasts.
const KEY_OUTAGE: Duration = Duration::from_secs(5);

/// When the outage begins in a demo without an end that it could be in the middle of.
const OUTAGE_AFTER: Duration = Duration::from_secs(5);

/// How long the end waits for the link: after an outage the agent's next attempt may be some seconds away.
const LINK_WITHIN: Duration = Duration::from_secs(15);

/// How often the end looks whether the link stands.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long what was acknowledged may take from the broker to the subscriber.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// Runs until the time is over, `q`, or a signal; then everything is drained and stopped, and the ledger is shown. Exit 0 only if it
/// closes. A second signal stops at once, exit 1.
///
/// # Errors
/// [`Failure::Usage`] for an outage that is longer than the demo; [`Failure::Failed`] when a part of it does not start.
pub fn demo(options: &Demo) -> Result<ExitCode, Failure> {
    if let (Some(span), Some(outage)) = (options.span, options.outage)
        && outage >= span
    {
        return Err(Failure::Usage("--outage: expected less than --for, so that the broker comes back".into()));
    }
    let folder = tempfile::Builder::new().prefix("rtlive-demo-").tempdir();
    let folder = folder.map_err(Failure::at("make a folder for the demo's state"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::at("start the runtime"))?;
    let closes = runtime.block_on(play(folder.path(), options))?;
    Ok(if closes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the demo, and returns whether the ledger closed.
async fn play(folder: &Path, options: &Demo) -> Result<bool, Failure> {
    let mut signals = Signals::listen().map_err(Failure::at("listen for signals"))?;
    let port = device::start().map_err(Failure::at("start the simulated device on a pseudo-terminal"))?;
    let (broker, subscription) = broker::start("rtlive/#").map_err(Failure::at("start the broker"))?;
    let cable = Cable::lay(broker).await.map_err(Failure::at("lay the cable to the broker"))?;
    let file = folder.join("rtlive.toml");
    let text = configuration(&folder.join("state"), &port, cable.address);
    std::fs::write(&file, text).map_err(Failure::at(format!("write {}", file.display())))?;
    let config = load(&[file])?;
    let (state_dir, plan) = (config.agent.state_dir.clone(), config.plan.clone());

    let mut centre = Centre { subscription, subscriber: Subscriber::default(), screen: Screen::default() };
    let keys = Keys::listen().map_err(Failure::at("listen to the terminal"))?;
    centre.screen.introduction(&port, broker, folder, keys.is_some()).map_err(unread)?;
    let mut pipeline = Pipeline::start(config).map_err(Failure::at("start the agent"))?;
    watch(&mut pipeline, &cable, &mut centre, keys, &mut signals, options).await?;
    centre.screen.end().map_err(unread)?;
    tokio::select! {
        stopped = drain(pipeline, &mut centre) => stopped?,
        () = signals.stop() => return Ok(false),
    }
    let account = Account::of(&state_dir, &plan, SystemClock.now());
    let mut account = account.map_err(Failure::at("open what the agent stored"))?;
    centre.hear_until(Instant::now() + ARRIVES_WITHIN, |subscriber| account.has_arrived(subscriber)).await?;
    let closes = account.compare(&centre.subscriber);
    centre.screen.plain(format_args!("\n{account}")).map_err(unread)?;
    Ok(closes)
}

/// The demo itself, until its end.
async fn watch(
    pipeline: &mut Pipeline,
    cable: &Cable,
    centre: &mut Centre,
    mut keys: Option<Keys>,
    signals: &mut Signals,
    options: &Demo,
) -> Result<(), Failure> {
    let clock = SystemClock;
    let (since, start) = (clock.now(), Instant::now());
    let end = options.span.map(|span| start + span);
    let mut outage_length = options.outage.unwrap_or(KEY_OUTAGE);
    let mut outage_at =
        options.outage.map(|outage| start + options.span.map_or(OUTAGE_AFTER, |span| span.saturating_sub(outage) / 2));
    let mut back_at = None;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            message = centre.subscription.next() => centre.take(message)?,
            _ = second.tick() => {
                let status = pipeline.status(since).await.map_err(Failure::at("ask the agent"))?;
                centre.screen.second(cable.is_plugged(), &status).map_err(unread)?;
            }
            () = at(outage_at) => {
                outage_at = None;
                back_at = Some(Instant::now() + outage_length);
                cable.pull();
                centre.screen.outage(outage_length).map_err(unread)?;
            }
            () = at(back_at) => {
                (back_at, outage_length) = (None, KEY_OUTAGE);
                cable.plug();
                centre.screen.back(clock.now()).map_err(unread)?;
            }
            key = Keys::next(&mut keys) => match key {
                b'o' if cable.is_plugged() => outage_at = Some(Instant::now()),
                b'q' => break,
                _ => {}
            },
            () = at(end) => break,
            () = signals.stop() => break,
            failure = pipeline.failed() => return Err(Failure::at("run the agent")(failure)),
        }
    }
    if !cable.is_plugged() {
        cable.plug();
        centre.screen.back(clock.now()).map_err(unread)?;
    }
    Ok(())
}

/// Waits within a bound until the link stands, and stops the agent, which sends what it has.
async fn drain(pipeline: Pipeline, centre: &mut Centre) -> Result<(), Failure> {
    let start = Instant::now();
    while start.elapsed() < LINK_WITHIN {
        let status = pipeline.status(SystemClock.now()).await.map_err(Failure::at("ask the agent"))?;
        if status.uplink.is_none_or(|uplink| uplink.state == "online") {
            break;
        }
        centre.hear_until(Instant::now() + LOOK_EVERY, |_| false).await?;
    }
    pipeline.stop().await.map_err(Failure::at("stop the agent"))
}

/// The other end of the link, and what is shown of it.
struct Centre {
    subscription: Subscription,
    subscriber: Subscriber,
    screen: Screen,
}

impl Centre {
    /// Takes what the broker delivered, and shows it; `None` says that the broker is gone, which is an error.
    fn take(&mut self, message: Option<Vec<u8>>) -> Result<(), Failure> {
        let gone = || Failure::at("hear from the broker")(io::Error::from(io::ErrorKind::UnexpectedEof));
        for arrived in self.subscriber.take(&message.ok_or_else(gone)?) {
            self.screen.arrived(&arrived).map_err(unread)?;
        }
        Ok(())
    }

    /// Takes what is delivered until then, or until `is_enough`.
    async fn hear_until(&mut self, then: Instant, is_enough: impl Fn(&Subscriber) -> bool) -> Result<(), Failure> {
        while !is_enough(&self.subscriber) {
            match timeout_at(then, self.subscription.next()).await {
                Ok(message) => self.take(message)?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// What the agent runs on: the device's registers, a window, and a rule that raises and clears as the load comes and goes.
fn configuration(state_dir: &Path, port: &Path, broker: SocketAddr) -> String {
    format!(
        r#"[agent]
id = "demo"
clock = "trusted"
state_dir = {state_dir:?}

[inputs.meter]
driver = "modbus"
port = {port:?}
every = "250ms"

[[inputs.meter.devices]]
name = "hall"
unit_id = {unit_id}
registers = [
  {{ series = "voltage", table = "input", address = 0, type = "f32", unit = "V" }},
  {{ series = "current", table = "input", address = 2, type = "f32", unit = "A" }},
  {{ series = "power", table = "input", address = 4, type = "f32", unit = "W" }},
  {{ series = "energy", table = "input", address = 6, type = "f32", unit = "kWh" }},
]

[streams.raw]
select = "meter/#"

[windows.two_seconds]
select = ["meter/hall/voltage", "meter/hall/current", "meter/hall/power"]
every = "2s"
compute = ["count", "min", "max", "mean"]

[rules.overload]
let = {{ current = "meter/hall/current" }}
when = "current > 7"
clear = "current < 6"
severity = "critical"
message = "{{current}} A through the meter"

[uplink]
broker = "mqtt://{broker}"
"#,
        unit_id = device::UNIT_ID,
    )
}

/// Nobody reads what is printed any more.
fn unread(error: io::Error) -> Failure {
    Failure::at("write to standard output")(error)
}

/// What is not here resolves never.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
