//! What a process uses, as the kernel counts it (proc(5)).

use std::fs;
use std::io;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The seconds of CPU that a process has used, all its threads together, in steps of 10 ms; it may have ended, but not have been waited for.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(id: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name may hold anything, but it ends with the last parenthesis; utime and stime are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// A figure of `/proc/<id>/status` in MiB: `VmRSS`, `VmHWM`.
///
/// # Errors
/// There is no such process, or it has ended.
pub fn memory_mib(id: u32, figure: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| io::Error::other(format!("no {figure}")))
}

/// Waits for a child, and returns the seconds of CPU that it used.
///
/// # Errors
/// What the system said.
pub fn wait_with_cpu(child: &mut Child) -> io::Result<(ExitStatus, f64)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    // Left in place, so that its figures can still be read.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let seconds = cpu_seconds(child.id())?;
    Ok((child.wait()?, seconds))
}

/// The middle one of some figures; of an even number, the upper one.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
