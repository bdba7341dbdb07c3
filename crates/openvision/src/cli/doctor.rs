//! `openvision doctor`.

use super::Ending;
use super::common::Common;
use super::report::say;
use clap::Args;
use openvision::{Error, Isa};
use serde_json::json;

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    common: Common,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        let sets: Vec<&str> = Isa::present().iter().map(|isa| isa.name()).collect();
        let mut problems = Vec::new();
        let chosen = match Isa::from_environment() {
            Ok(isa) => isa.name(),
            Err(error) => {
                problems.push(format!("OPENVISION_ISA: {error}"));
                Isa::best().name()
            }
        };
        if chosen == "portable" {
            problems.push("this processor has no vector instructions that are used; encoding will be slow".into());
        }
        let model = self.common.model.as_ref().map(|model| match openvision::resolve::resolve(model) {
            Ok(path) => path.display().to_string(),
            Err(error) => {
                problems.push(error.to_string());
                String::new()
            }
        });
        let facts = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "threads": self.common.threads()?,
            "instruction_sets": sets,
            "instruction_set": chosen,
            "memory_mib": memory_mib(),
            "jpeg_decoder": openvision_io::image::DECODER,
            "jpeg_speed": jpeg_speed(),
            "model": model,
            "ok": problems.is_empty(),
            "problems": problems,
        });
        if self.common.json {
            say(&facts)?;
        } else {
            for (name, value) in facts.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                say(format_args!("{name:18} {value}"))?;
            }
        }
        Ok(if problems.is_empty() { Ending::Done } else { Ending::NotOk })
    }
}

fn jpeg_speed() -> &'static str {
    if openvision_io::image::DECODER_VECTORIZED {
        "vector instructions"
    } else {
        "half: plain C, because nasm was not there when this program was built"
    }
}

/// Memory of the machine, where the system says it in a file.
fn memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
