//! `openvision bench`.

use super::Ending;
use super::common::Common;
use clap::{Args, ValueEnum};
use openvision::Error;
use openvision::bench::{Bench as Measurement, Row, Tower};
use serde_json::json;
use std::io::{BufRead, Write};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Pictures
    Image,
    /// Texts
    Text,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  openvision bench -m models/tiny\n  \
                        openvision bench -m models/tiny --batch 1,8,32 --seconds 10 --json")]
pub(crate) struct Bench {
    #[command(flatten)]
    common: Common,
    /// Items of one pass; several sizes separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Time for each size
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// The tower to run
    #[arg(long, value_enum, default_value_t = Which::Image)]
    tower: Which,
    /// Answer requests on standard input, one JSON line each (tools/peers): `input FILE`, `embed`, `run BATCH PASSES`
    #[arg(long, hide = true)]
    serve_stdin: bool,
}

/// Longest time that one row may take.
const LONGEST: f64 = 3600.0;

impl Bench {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        if !(self.seconds > 0.0 && self.seconds <= LONGEST) {
            return Err(Error::Usage(format!("--seconds {}: more than 0 and at most {LONGEST}", self.seconds)));
        }
        let image = self.tower == Which::Image;
        let model = self.common.load(&self.common.options(image, !image))?;
        let tower = if image { Tower::Image } else { Tower::Text };
        let mut bench = Measurement::new(&model, tower)?;
        if self.serve_stdin {
            return serve(&mut bench);
        }
        for (i, &batch) in self.batch.iter().enumerate() {
            let row = bench.measure(batch, Duration::from_secs_f64(self.seconds))?;
            if self.common.json {
                line(&json!(row))?;
            } else {
                if i == 0 {
                    line(&heading(&row))?;
                }
                line(&text(&row))?;
            }
        }
        Ok(Ending::Done)
    }
}

fn line(text: &impl std::fmt::Display) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Stdout)
}

fn heading(row: &Row) -> String {
    let tower = match row.tower {
        Tower::Image => "pictures",
        Tower::Text => "texts",
    };
    format!(
        "{}, {tower}, {}, {} thread(s)\n{:>6} {:>7} {:>12} {:>12} {:>9} {:>9} {:>7} {:>9}",
        row.model,
        row.instruction_set,
        row.threads,
        "batch",
        "passes",
        "median 1/s",
        "best 1/s",
        "GFLOP/s",
        "of peak",
        "best",
        "MiB"
    )
}

fn text(row: &Row) -> String {
    format!(
        "{:>6} {:>7} {:>12.2} {:>12.2} {:>9.1} {:>8.1}% {:>6.1}% {:>9}",
        row.batch,
        row.passes,
        row.median_per_second,
        row.best_per_second,
        row.gflops,
        100.0 * row.peak_share,
        100.0 * row.best_peak_share,
        row.peak_memory.map_or_else(|| "-".into(), |bytes| (bytes >> 20).to_string()),
    )
}

/// Answers requests until standard input ends, so that a script can alternate this program with its peers.
fn serve(bench: &mut Measurement) -> Result<Ending, Error> {
    for request in std::io::stdin().lock().lines() {
        let request = request.map_err(Error::Stdin)?;
        let answer = match answer(bench, &request) {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error.to_string() }),
        };
        line(&answer)?;
    }
    Ok(Ending::Done)
}

fn answer(bench: &mut Measurement, request: &str) -> Result<serde_json::Value, Error> {
    let unknown = || Error::Usage(format!("'{request}' is none of: input FILE, embed, run BATCH PASSES"));
    let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
    match verb {
        "input" => {
            let bytes = std::fs::read(rest).map_err(|source| Error::File { path: rest.into(), source })?;
            Ok(json!({ "inputs": bench.set_inputs(&bytes)? }))
        }
        "embed" => Ok(json!({ "embeddings": bench.embed()? })),
        "run" => {
            let (batch, passes) = rest.split_once(' ').ok_or_else(unknown)?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| unknown());
            let (batch, passes) = (number(batch)?, number(passes)?);
            let seconds = (0..passes).map(|_| bench.pass(batch)).collect::<Result<Vec<f64>, _>>()?;
            Ok(json!({ "seconds": seconds }))
        }
        _ => Err(unknown()),
    }
}
