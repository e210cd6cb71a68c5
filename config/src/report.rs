//! The report of `rtlive check`: all mistakes, or the plan.

use std::fmt;

use serde::Serialize;

use crate::check::Config;
use crate::forecast::Forecast;
use crate::mistake::{Mistake, Mistakes};

/// What `rtlive check` says; with `--json` this object, whose fields are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether there is no mistake.
    pub ok: bool,
    /// All mistakes, in the order of files and lines.
    pub mistakes: Vec<Mistake>,
    /// What is probably not what was meant.
    pub warnings: Vec<Mistake>,
    /// What the configuration will do; `None` if there is a mistake.
    pub plan: Option<Forecast>,
}

impl Report {
    /// The report of what [`load`](crate::load()) gave.
    pub fn of<I>(loaded: &Result<Config<I>, Mistakes>) -> Self {
        match loaded {
            Ok(config) => Self {
                ok: true,
                mistakes: Vec::new(),
                warnings: config.warnings.clone(),
                plan: Some(Forecast::of(config)),
            },
            Err(mistakes) => Self { ok: false, mistakes: mistakes.0.clone(), warnings: Vec::new(), plan: None },
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match &self.plan {
            Some(plan) => plan.fmt(f),
            None => {
                for mistake in &self.mistakes {
                    writeln!(f, "{mistake}")?;
                }
                match self.mistakes.len() {
                    1 => f.write_str("1 mistake"),
                    count => write!(f, "{count} mistakes"),
                }
            }
        }
    }
}
