//! `openvision eval zero-shot|sweep`; `drift` has a file of its own.

use super::Ending;
use super::common::{Common, Pictures, Precision, interrupt};
use super::report::{Report, say};
use clap::{Args, Subcommand, ValueEnum};
use openvision::bench::peak_memory;
use openvision::classify::Prompts;
use openvision::evaluate::{Accuracy, Labelled, ZeroShot};
use openvision::{Error, inputs};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};

#[derive(Subcommand)]
pub(crate) enum Eval {
    /// How many pictures of labelled folders a model names right
    ZeroShot(ZeroShotArgs),
    /// Accuracy, speed and memory of several models, sizes and precisions on the same labelled folders
    Sweep(Sweep),
    /// How far a precision moves the embeddings of pictures, against the same model in 32 bits
    Drift(super::drift::Drift),
}

#[derive(Args)]
#[command(after_help = "Example:\n  openvision eval zero-shot -m models/tiny photos/\n\
                        where pictures lie in photos/CLASS/ and CLASS is what they show")]
pub(crate) struct ZeroShotArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pictures: Pictures,
    #[command(flatten)]
    naming: Naming,
}

/// How folders become prompts.
#[derive(Args, Clone, Debug)]
struct Naming {
    /// Prompts: imagenet80, openvision81, openai7, simple, another built-in set, or @FILE with {} for the label
    #[arg(long, short, value_name = "SET", default_value = "simple")]
    templates: String,
    /// Names of classes: lines of FOLDER, a tab, NAME [default: the folder's name, spaces for underscores]
    #[arg(long, value_name = "FILE")]
    names: Option<String>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  openvision eval sweep photos/ --models models/tiny,models/clip --image-sizes own,128\n\
                        An asterisk marks what no other line beats in both accuracy and speed."
)]
pub(crate) struct Sweep {
    /// Folders FOLDER/CLASS/PICTURE, or shards with such entries
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<String>,
    /// Models: folders, files, hub ids or names, separated by commas
    #[arg(long, value_name = "M,...", value_delimiter = ',', required = true)]
    models: Vec<String>,
    /// Input sizes: N, HxW, or own for the model's own
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "own")]
    image_sizes: Vec<String>,
    /// Precisions
    #[arg(long, value_enum, value_name = "P,...", value_delimiter = ',', default_value = "f32")]
    precisions: Vec<Precision>,
    #[command(flatten)]
    naming: Naming,
    /// Threads [default: all processors]
    #[arg(long, short = 'j', value_name = "N")]
    threads: Option<usize>,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        match self {
            Eval::ZeroShot(command) => command.run(),
            Eval::Sweep(command) => command.run(),
            Eval::Drift(command) => command.run(),
        }
    }
}

/// What `eval zero-shot --json` prints.
#[derive(Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    accuracy: Accuracy,
    peak_memory: Option<u64>,
    gflops: f64,
    image_size: [usize; 2],
}

impl ZeroShotArgs {
    fn run(self) -> Result<Ending, Error> {
        let prompts = Prompts::named(&self.naming.templates)?;
        let data = Labelled::from_folders(self.pictures.files()?)?;
        let names = self.naming.names.as_deref().map(inputs::lines).transpose()?.unwrap_or_default();
        let names = data.names(&names)?;
        let mut options = self.common.options(true, true);
        self.pictures.apply(&mut options);
        let (interrupt, model) = (interrupt(), self.common.load(&options)?);
        let mut report = Report::new(&self.common, data.inputs.len());
        let limits = self.pictures.limits();
        let run = ZeroShot { model: &model, data: &data, names, prompts: &prompts, limits, interrupt: &interrupt };
        let accuracy = run.run(&mut |index, error| {
            report.tick();
            error.map_or(Ok(()), |error| report.failure(&data.inputs[index].name(), error))
        })?;
        let image = &model.config.image;
        let measured = Measured {
            accuracy,
            peak_memory: peak_memory(),
            gflops: model.config.flops().image as f64 / 1e9,
            image_size: [image.height, image.width],
        };
        if report.is_json() {
            report.object(&serde_json::json!(measured))?;
        } else {
            let Accuracy { pictures, classes, acc1, acc5, mean_per_class_recall, pictures_per_second, .. } =
                measured.accuracy;
            let five = acc5.map_or_else(String::new, |acc5| format!(", {:.2} % among the first five", acc5 * 100.0));
            report.line(format!(
                "{:.2} % right{five}, mean recall of a class {:.2} % ({pictures} pictures, {classes} classes, \
                 {pictures_per_second:.1} pictures/s)",
                acc1 * 100.0,
                mean_per_class_recall * 100.0,
            ))?;
        }
        report.finish(&interrupt)
    }
}

/// A line of the sweep.
#[derive(Serialize)]
struct Point {
    model: String,
    precision: String,
    #[serde(flatten)]
    measured: Measured,
    /// No other point is both more accurate and faster.
    best: bool,
}

impl Sweep {
    /// Every point runs in a process of its own, so that its peak memory is its own.
    fn run(self) -> Result<Ending, Error> {
        let program = std::env::current_exe().map_err(|source| Error::File { path: "openvision".into(), source })?;
        let (mut points, mut failed) = (Vec::new(), 0);
        for model in &self.models {
            for size in &self.image_sizes {
                for precision in &self.precisions {
                    let precision = precision.to_possible_value().map_or_else(String::new, |p| p.get_name().to_owned());
                    match self.measure(Command::new(&program), model, size, &precision)? {
                        Some(measured) => points.push(Point { model: model.clone(), precision, measured, best: false }),
                        None => {
                            failed += 1;
                            eprintln!("error: {model}, size {size}, {precision}: failed, see above; the others go on");
                        }
                    }
                }
            }
        }
        mark_best(&mut points);
        self.print(&points)?;
        failed += points.iter().map(|point| point.measured.accuracy.failed).sum::<usize>();
        Ok(match (points.is_empty(), failed) {
            (true, _) => Ending::NotOk,
            (false, 0) => Ending::Done,
            (false, _) => Ending::SomeFailed,
        })
    }

    fn measure(
        &self,
        mut command: Command,
        model: &str,
        size: &str,
        precision: &str,
    ) -> Result<Option<Measured>, Error> {
        command.args(["eval", "zero-shot", "--json", "-m", model, "--precision", precision]);
        command.args(["--templates", &self.naming.templates]);
        if let Some(names) = &self.naming.names {
            command.args(["--names", names]);
        }
        if size != "own" {
            command.args(["--image-size", size]);
        }
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let output = command.arg("--").args(&self.inputs).stderr(Stdio::inherit()).output();
        let output = output.map_err(|source| Error::File { path: "openvision".into(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Lines before the last are of pictures that failed.
        let last = text.lines().last().unwrap_or("");
        Ok(serde_json::from_str(last).ok().filter(|_| matches!(output.status.code(), Some(0 | 3))))
    }

    fn print(&self, points: &[Point]) -> Result<(), Error> {
        if self.json {
            return points.iter().try_for_each(|point| say(serde_json::json!(point)));
        }
        say(format_args!(
            "  {:28} {:>9} {:>9} {:>7} {:>7} {:>10} {:>9} {:>7}",
            "model", "pixels", "precision", "top 1", "top 5", "pictures/s", "peak MiB", "GFLOP"
        ))?;
        for Point { model, precision, measured, best } in points {
            let Measured { accuracy, peak_memory, gflops, image_size: [height, width] } = measured;
            say(format_args!(
                "{} {model:28} {:>9} {precision:>9} {:>6.2}% {:>7} {:>10.1} {:>9} {gflops:>7.1}",
                if *best { "*" } else { " " },
                format!("{height}x{width}"),
                accuracy.acc1 * 100.0,
                accuracy.acc5.map_or_else(|| "-".into(), |acc5| format!("{:.2}%", acc5 * 100.0)),
                accuracy.pictures_per_second,
                peak_memory.map_or_else(|| "-".into(), |bytes| (bytes >> 20).to_string()),
            ))?;
        }
        Ok(())
    }
}

fn mark_best(points: &mut [Point]) {
    let values: Vec<(f64, f64)> =
        points.iter().map(|p| (p.measured.accuracy.acc1, p.measured.accuracy.pictures_per_second)).collect();
    for (point, (accuracy, speed)) in std::iter::zip(points, &values) {
        let beaten = |(a, s): &(f64, f64)| a >= accuracy && s >= speed && (a > accuracy || s > speed);
        point.best = !values.iter().any(beaten);
    }
}
