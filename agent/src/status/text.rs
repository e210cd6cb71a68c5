//! The status for people: a table of inputs, windows and streams, then a line for everything else. What needs a look stands under the
//! line that it belongs to.

use std::fmt;

use super::{
    ClockLine, FlashLine, InputStatus, MemoryLine, ObjectionStatus, QualityStatus, Status, StreamStatus, WindowStatus,
};
use crate::uplink::{BudgetLine, LadderLine, LinkLine, StreamRefusal, UplinkHealth};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, version, since, time, inputs, windows, streams, store, uplink, alerts, ledger, .. } = self;
        writeln!(f, "{agent}, rtlive {version}, runs since {}, now it is {}", second(since), second(time))?;

        write!(f, "{}", self.clock)?;

        let width = column(inputs.iter().map(|input| &input.name));
        writeln!(f, "\n{:<width$}  {:<9}{:>10}{:>10}  newest", "input", "state", "taken", "per s")?;
        inputs.iter().try_for_each(|input| input.write(f, width))?;
        if inputs.is_empty() {
            writeln!(f, "none is configured")?;
        }
        if !windows.is_empty() {
            let width = column(windows.iter().map(|window| &window.name));
            writeln!(f, "\n{:<width$}  {:>10}{:>12}{:>12}{:>8}", "window", "readings", "in open", "in closed", "late")?;
            for WindowStatus { name, selected, open, finished, late, crowded, cut } in windows {
                write!(f, "{name:<width$}  {selected:>10}{open:>12}{finished:>12}{late:>8}")?;
                let said = [(crowded, "ended early, as too many were open"), (cut, "sessions cut at `longest`")];
                for (count, what) in said.into_iter().filter(|(count, _)| **count > 0) {
                    write!(f, "  {count} {what}")?;
                }
                writeln!(f)?;
            }
        }
        let width = column(streams.iter().map(|stream| &stream.name));
        let [numbered, acknowledged, waiting, in_gaps] = ["records", "delivered", "waiting", "in gaps"];
        writeln!(f, "\n{:<width$}  {numbered:>10}{acknowledged:>12}{waiting:>12}{in_gaps:>8}", "stream")?;
        streams.iter().try_for_each(|stream| stream.write(f, width))?;

        let (series, open) = (self.series, self.windows_open);
        let place = if store.memory.is_some() { "IN MEMORY" } else { "on disk" };
        let (size, most, commits) = (bytes(store.bytes), bytes(store.bytes_max), store.commits);
        writeln!(f, "\nstore    {size} of {most} {place}, {commits} commits, {series} series, {open} open windows")?;
        if let Some(MemoryLine { since, why, retry_at }) = &store.memory {
            let (since, retry_at) = (second(since), second(retry_at));
            writeln!(
                f,
                "         since {since} the disk cannot be used, and what is not sent is lost when the agent ends: {why}"
            )?;
            writeln!(f, "         it is tried again from {retry_at} on")?;
        }
        write!(f, "{}", store.flash)?;
        match uplink {
            Some(uplink) => writeln!(f, "link     {uplink}")?,
            None => writeln!(f, "link     none is configured: records are stored, and go nowhere")?,
        }
        self.quality.fmt(f)?;
        let raised = if alerts.is_empty() { "none is raised".into() } else { format!("raised: {}", alerts.join(", ")) };
        writeln!(f, "alerts   {raised}")?;
        if ledger.closes {
            return writeln!(f, "ledger   closes");
        }
        writeln!(f, "ledger   does not close, which is a defect of the program: {}", ledger.imbalances.join("; "))
    }
}

impl fmt::Display for ClockLine {
    /// Nothing while it is trusted: there is nothing to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trusted, since, source, provisional } = self;
        if *trusted {
            return Ok(());
        }
        let since = since.as_ref().map(|since| format!(" since {}", second(since))).unwrap_or_default();
        writeln!(f, "THE CLOCK IS NOT TRUSTED{since}: {source}.")?;
        writeln!(f, "{provisional} readings wait for it; where it is right, say agent.clock = \"trusted\"")
    }
}

impl fmt::Display for FlashLine {
    /// Nothing before a day can be estimated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(written), Some(syncs)) = (self.bytes_per_day, self.syncs_per_day) else { return Ok(()) };
        write!(f, "flash    {} and {syncs} syncs a day", bytes(written))?;
        if let Some(amplification) = self.amplification {
            write!(f, ", {amplification:.1} bytes for each that is stored")?;
        }
        if let Some(years) = self.years {
            write!(f, ", lasts {years:.1} years at that")?;
        }
        writeln!(f)
    }
}

impl InputStatus {
    fn write(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let Self { name, state, taken, per_s, lag_s, restarts, error, .. } = self;
        let per_s = per_s.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
        let newest = lag_s.map_or_else(|| "nothing read yet".into(), |lag| format!("{} ago", span(lag)));
        writeln!(f, "{name:<width$}  {state:<9}{taken:>10}{per_s:>10}  {newest}")?;
        let mut notes: Vec<String> = Vec::new();
        let dropped: Vec<String> = self.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if !dropped.is_empty() {
            notes.push(format!("dropped: {}", dropped.join(", ")));
        }
        notes.extend(self.counters.iter().map(|(name, count)| format!("{name} {count}")));
        let kinds = [
            ("wait for the clock", self.provisional),
            ("unsynced", self.unsynced),
            ("bad", self.bad),
            ("quarantined", self.quarantined),
            ("late", self.late),
            ("restarts", *restarts),
        ];
        notes.extend(kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind} {count}")));
        if !notes.is_empty() {
            writeln!(f, "    {}", notes.join(", "))?;
        }
        match error {
            Some(error) if state != "running" => writeln!(f, "    {error}"),
            Some(error) => writeln!(f, "    last error: {error}"),
            None => Ok(()),
        }
    }
}

impl StreamStatus {
    fn write(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let Self { name, numbered, acknowledged, stored, in_gaps, lag_s, stored_bytes, .. } = self;
        write!(f, "{name:<width$}  {numbered:>10}{acknowledged:>12}{stored:>12}{in_gaps:>8}")?;
        if let Some(lag) = lag_s {
            write!(f, "  oldest {}", span(*lag))?;
        }
        if *stored_bytes > 0 {
            write!(f, ", {} in frames", bytes(*stored_bytes))?;
        }
        if let Some(suppressed) = self.suppressed {
            write!(f, ", {suppressed} that told nothing new left out")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for QualityStatus {
    /// A line for all series, and one for each pair of series and check; nothing where nothing was objected to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.checks.is_empty() {
            return Ok(());
        }
        let checks: Vec<String> = self.checks.iter().map(|(check, count)| format!("{check} {count}")).collect();
        writeln!(f, "quality  objected to: {}", checks.join(", "))?;
        for ObjectionStatus { series, check, count } in &self.series {
            writeln!(f, "         {series}: {check} {count}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "         and {more} more of series and checks"),
        }
    }
}

impl fmt::Display for BudgetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spent, bytes: all, left_bytes_per_day: left, until, held } = self;
        let (part, until) = (*spent as f64 / (*all).max(1) as f64 * 100.0, second(until));
        write!(f, "budget: {} of {} ({part:.0} %) until {until}", bytes(*spent), bytes(*all))?;
        write!(f, ", {} a day are left", bytes(*left))?;
        match held.as_deref() {
            Some("bulk") => write!(f, "; bulk waits"),
            Some("live") => write!(f, "; all but alerts waits"),
            Some(_) => write!(f, "; ALL WAITS"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for UplinkHealth {
    /// A line, and one more for each thing that needs a look.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(since) = &self.since {
            write!(f, " since {}", second(since))?;
        }
        if let Some(at) = &self.next_attempt_at {
            write!(f, ", next attempt at {}", second(at))?;
        }
        write!(f, ", {}", self.broker)?;
        if let Some(link) = &self.link {
            write!(f, " over {link}")?;
        }
        if let Some(protocol) = &self.protocol {
            write!(f, ", MQTT {protocol}")?;
        }
        let (frames, size) = (self.acknowledged_frames, bytes(self.acknowledged_bytes));
        write!(f, ", {frames} frames ({size}) delivered, {} messages in flight", self.in_flight)?;
        if let (Some(p50), Some(p99)) = (self.ack_ms_p50, self.ack_ms_p99) {
            write!(f, ", acknowledged after {p50:.1} ms (99 %: {p99:.1} ms)")?;
        }
        if self.reconnects > 0 {
            write!(f, ", lost {} times", self.reconnects)?;
        }
        if let (Some(carries), Some(round_trip)) = (self.link_bytes_per_s, self.link_round_trip_ms) {
            write!(f, "\n         carries about {}/s, {round_trip:.0} ms to and fro", bytes(carries as u64))?;
        }
        if let (Some(sent), Some(acknowledged)) = (self.sent_bytes_per_s, self.acknowledged_bytes_per_s) {
            write!(f, "\n         sends {}/s", bytes(sent as u64))?;
            if let Some(used) = self.link_use {
                write!(f, " ({:.0} %)", used * 100.0)?;
            }
            write!(f, ", {}/s acknowledged", bytes(acknowledged as u64))?;
        }
        write!(f, "\n         {} records wait, {} in frames", self.waiting_records, bytes(self.waiting_bytes))?;
        if let Some(drain) = self.drain_s {
            write!(f, ", which takes {} if nothing new comes", span(drain))?;
        }
        if let (Some(p50), Some(p99)) = (self.record_ms_p50, self.record_ms_p99) {
            let [p50, p99] = [p50, p99].map(|ms| span(ms / 1000.0));
            write!(f, "\n         new records are acknowledged {p50} after their commit (99 %: {p99})")?;
        }
        for LinkLine { link, interface, carried_up_bytes, carried_down_bytes, budget, .. } in &self.links {
            let [up, down] = [*carried_up_bytes, *carried_down_bytes].map(bytes);
            write!(f, "\n         link {link} ({interface}): {up} to and {down} from brokers")?;
            budget.iter().try_for_each(|budget| write!(f, "; {budget}"))?;
        }
        if let Some(budget) = self.budget.as_ref().filter(|_| self.links.is_empty()) {
            write!(f, "\n         {budget}")?;
        }
        for LadderLine { ladder, carries } in &self.ladders {
            match carries {
                Some(level) => write!(f, "\n         of the ladder {ladder} it would carry all of {level}")?,
                None => write!(f, "\n         of the ladder {ladder} it would carry NO LEVEL as a whole")?,
            }
        }
        let of_others = self.brokers.iter().filter_map(|line| line.error.as_ref());
        for error in self.error.iter().chain(of_others.filter(|error| self.error.as_ref() != Some(error))) {
            write!(f, "\n         {error}")?;
        }
        for StreamRefusal { stream, reason } in &self.refused {
            write!(f, "\n         the stream {stream} is not taken: {reason}")?;
        }
        if self.too_long > 0 {
            write!(f, "\n         {} frames are longer than the broker takes", self.too_long)?;
        }
        Ok(())
    }
}

/// The width of a column of names, wide enough for its heading.
fn column<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or_default().max("stream".len())
}

/// A time without the fraction of its second.
fn second(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.into(),
    }
}

/// A span in the unit in which a person would tell it.
fn span(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3_600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        ..1_024.0 => format!("{count} B"),
        ..1_048_576.0 => format!("{:.1} KiB", count / 1_024.0),
        ..1_073_741_824.0 => format!("{:.1} MiB", count / 1_048_576.0),
        _ => format!("{:.2} GiB", count / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objections_are_told_by_check_and_by_series() {
        let series = vec![ObjectionStatus { series: "a/x".into(), check: "range".into(), count: 5 }];
        let quality = QualityStatus { checks: [("range".into(), 6), ("spike".into(), 1)].into(), series, more: 2 };
        let told =
            "quality  objected to: range 6, spike 1\n         a/x: range 5\n         and 2 more of series and checks\n";
        assert_eq!(quality.to_string(), told);
        assert_eq!(QualityStatus::default().to_string(), "");
    }

    #[test]
    fn quantities_are_told_as_a_person_would() {
        assert_eq!([0.04, 119.9, 120.0, 7_200.0, 200_000.0].map(span), ["0.0 s", "119.9 s", "2 min", "2 h", "2 d"]);
        assert_eq!([0, 1023, 1536, 5 << 20, 3 << 29].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "1.50 GiB"]);
        assert_eq!(second("2026-01-01T00:00:00.25Z"), "2026-01-01T00:00:00Z");
        assert_eq!(second("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}
