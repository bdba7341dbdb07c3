//! `openvision bench`.

use super::Ending;
use super::common::{Common, Precision, image_size};
use clap::{Args, ValueEnum};
use openvision::bench::{Bench as Measurement, Detail, OperationRow, Row, Tower, forget_peak_memory};
use openvision::{Error, LoadOptions};
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
                        openvision bench -m models/tiny --batch 1,8,32 --seconds 10 --json\n  \
                        openvision bench models/tiny models/base --precisions f32,bf16 --by-operation")]
pub(crate) struct Bench {
    #[command(flatten)]
    common: Common,
    /// Models to measure, one after the other [default: that of --model]
    #[arg(value_name = "MODEL", conflicts_with = "serve_stdin")]
    models: Vec<String>,
    /// Arithmetics to measure each with, separated by commas [default: that of --precision]
    #[arg(long, value_enum, value_name = "P", value_delimiter = ',', conflicts_with = "serve_stdin")]
    precisions: Vec<Precision>,
    /// Items of one pass; several sizes separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Time for each size
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// The tower to run
    #[arg(long, value_enum, default_value_t = Which::Image)]
    tower: Which,
    /// Pictures of this height and width (N or HxW) instead of the model's own
    #[arg(long, value_name = "SIZE", value_parser = image_size)]
    image_size: Option<(usize, usize)>,
    /// Show below each row where the time goes (takes as long again)
    #[arg(long)]
    by_operation: bool,
    /// Answer requests on standard input, one JSON line each (tools/peers): `about`, `peak`, `input FILE`, `embed`,
    /// `run BATCH PASSES`
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
        if self.batch.contains(&0) {
            return Err(Error::Usage("--batch 0: a batch has at least one item".into()));
        }
        if self.serve_stdin {
            return self.with_model(&self.common, &mut |bench| serve(bench));
        }
        let models = match &self.models[..] {
            [] => vec![self.common.model.clone()],
            models => models.iter().cloned().map(Some).collect(),
        };
        let precisions = match &self.precisions[..] {
            [] => vec![self.common.precision],
            precisions => precisions.iter().copied().map(Some).collect(),
        };
        for model in &models {
            for &precision in &precisions {
                let common = Common { model: model.clone(), precision, ..self.common.clone() };
                self.with_model(&common, &mut |bench| self.rows(bench))?;
            }
        }
        Ok(Ending::Done)
    }

    /// Loads a model for `work`, and drops it again.
    fn with_model(
        &self,
        common: &Common,
        work: &mut dyn FnMut(&mut Measurement) -> Result<Ending, Error>,
    ) -> Result<Ending, Error> {
        let image = self.tower == Which::Image;
        forget_peak_memory();
        let options = LoadOptions { image_size: self.image_size, ..common.options(image, !image) };
        let model = common.load(&options)?;
        let asked = common.precision.and_then(|precision| precision.to_possible_value());
        let precision = asked.as_ref().map_or(model.precision(), |value| value.get_name());
        work(&mut Measurement::new(&model, if image { Tower::Image } else { Tower::Text }, precision)?)
    }

    fn rows(&self, bench: &Measurement) -> Result<Ending, Error> {
        let detail = if self.by_operation { Detail::ByOperation } else { Detail::Whole };
        for (i, &batch) in self.batch.iter().enumerate() {
            let row = bench.measure(batch, Duration::from_secs_f64(self.seconds), detail)?;
            if self.common.json {
                line(&json!(row))?;
                continue;
            }
            if i == 0 {
                line(&heading(&row))?;
            }
            line(&text(&row))?;
            for operation in row.operations.iter().flatten() {
                line(&operation_text(operation))?;
            }
        }
        Ok(Ending::Done)
    }
}

fn line(text: &impl std::fmt::Display) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Stdout)
}

/// What a model's arithmetic is counted in.
fn unit(row: &Row) -> &'static str {
    if row.precision == "int8" { "Gop/s" } else { "GFLOP/s" }
}

fn heading(row: &Row) -> String {
    let tower = match row.tower {
        Tower::Image => "pictures",
        Tower::Text => "texts",
    };
    format!(
        "{}, {tower}, {}, {}, {} thread(s)\n{:>6} {:>7} {:>12} {:>12} {:>9} {:>9} {:>7} {:>9}",
        row.model,
        row.precision,
        row.instruction_set,
        row.threads,
        "batch",
        "passes",
        "median 1/s",
        "best 1/s",
        unit(row),
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

fn operation_text(row: &OperationRow) -> String {
    let OperationRow { operation, share, milliseconds, gflops, peak_share } = row;
    let mut text = format!("       {:5.1}%  {operation:20} {milliseconds:10.3} ms an item", 100.0 * share);
    if let (Some(gflops), Some(peak_share)) = (gflops, peak_share) {
        text += &format!(" {gflops:8.1} a thread {:6.1}%", 100.0 * peak_share);
    }
    text
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
    let unknown = || Error::Usage(format!("'{request}' is none of: about, peak, input FILE, embed, run BATCH PASSES"));
    let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
    match verb {
        "input" => {
            let bytes = std::fs::read(rest).map_err(|source| Error::File { path: rest.into(), source })?;
            Ok(json!({ "inputs": bench.set_inputs(&bytes)? }))
        }
        "about" => Ok(json!(bench.about())),
        "peak" => Ok(json!({ "gflops": bench.peak() })),
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
