//! What this kernel can't do, measured in a guest with another (tests/lab/guest): this same program, one caller
//! on an empty host. The guest's processor is emulated, so the times mean nothing, but all contenders run on
//! it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::contender::Scenario;
use crate::measure::Effort;
use crate::report::Brief;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/guest");
/// Rounds of its run: the rest of the effort would be spent on an emulated processor.
const ROUNDS: usize = 5;
/// How long it may take, in seconds.
const PATIENCE: &str = "1800";

/// The figures of a run in a guest.
pub struct Guest {
    /// What the run has written of itself.
    pub figures: Value,
}

/// Downloads what a guest needs, unless that is there: for which this process must still be outside of the
/// stage.
pub fn set_up() -> Result<()> {
    let status = Command::new(SCRIPT).arg("--setup").status().context(SCRIPT)?;
    ensure!(status.success(), "{SCRIPT} --setup: {status}");
    Ok(())
}

impl Guest {
    /// Runs this program in a guest.
    pub fn measure(scenarios: &[&Scenario], reference: &Path, effort: &Effort) -> Result<Self> {
        let this = std::env::current_exe().context("this program")?;
        let (rounds, samples) = (effort.rounds.min(ROUNDS), effort.samples);
        let mut command = Command::new(SCRIPT);
        command
            .args(["-t", PATIENCE])
            .arg(this)
            .args(["--present", "0", "--callers", "1", "--json", "-"])
            .args(["--rounds", &rounds.to_string(), "--samples", &samples.to_string()])
            .arg("--reference")
            .arg(reference);
        for scenario in scenarios {
            command.args(["--only", scenario.name]);
        }
        let output = command.stderr(Stdio::inherit()).output().context(SCRIPT)?;
        ensure!(output.status.success(), "{SCRIPT}: {}", output.status);
        Ok(Self { figures: serde_json::from_slice(&output.stdout).context("the guest's figures")? })
    }

    /// Its kernel's name and release.
    pub fn kernel(&self) -> &str {
        self.figures.get("kernel").and_then(Value::as_str).unwrap_or_default()
    }

    /// Plumb's figures.
    pub fn briefs(&self) -> Vec<Brief> {
        let figures = self.figures.get("figures").and_then(Value::as_array);
        let text = |figure: &Value, key: &str| {
            figure.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let own = figures.into_iter().flatten().filter(|f| text(f, "contender") == "plumb");
        own.map(|figure| {
            let ratio = |to: &str| figure.pointer(&format!("/{to}/time/median"))?.as_f64();
            Brief {
                operation: text(figure, "operation"),
                verb: text(figure, "verb"),
                ms: None,
                of_floor: ratio("to_floor"),
                faster_than_reference: ratio("to_reference").map(|ratio| 1.0 / ratio),
            }
        })
        .collect()
    }
}
