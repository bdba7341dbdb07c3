//! `openvision embed`.

use super::Ending;
use super::common::{Common, Pictures, interrupt};
use super::report::Report;
use clap::Args;
use openvision::embed::{Content, Job, Summary};
use openvision::output::{Entry, Format, Journal, Meta, json_line};
use openvision::{Error, inputs};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:\n  openvision embed -m models/tiny photos/ --out photos.npz\n  \
                        openvision embed -m models/tiny --texts captions.txt --json\n  \
                        openvision embed -m models/tiny shards/train.tar table.parquet --out vectors.parquet\n  \
                        openvision embed -m models/tiny photos/ --tokens -2 --out patches.npy")]
pub(crate) struct Embed {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pictures: Pictures,
    /// Embed texts too, one a line of this file (- for standard input; empty lines are left out), or a column of a
    /// .parquet table
    #[arg(long, value_name = "FILE")]
    texts: Option<String>,
    /// Column of a .parquet table of texts
    #[arg(long, value_name = "NAME", default_value = "caption")]
    text_column: String,
    /// Write to a file: .npy (float32 [N, D], names in FILE.npy.json), .npz, .jsonl, .parquet, .arrow
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Go on with an interrupted run of the same --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Do not scale embeddings to unit length
    #[arg(long, conflicts_with = "tokens")]
    raw: bool,
    /// Give the tokens of a layer instead: 0 is the first block, -1 the last, -2 the one before
    #[arg(long, value_name = "LAYER", allow_negative_numbers = true)]
    tokens: Option<i32>,
    /// Apply the tower's final norm to the tokens
    #[arg(long, requires = "tokens")]
    final_norm: bool,
    /// Tokenise OpenVision's texts as its JAX training pipeline did
    #[arg(long)]
    jax_texts: bool,
}

impl Embed {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        if let Some(out) = &self.out {
            Format::of(out)?;
        }
        let texts =
            self.texts.as_deref().map(|path| inputs::texts(path, &self.text_column)).transpose()?.unwrap_or_default();
        if let (Some(path), true, true) = (&self.texts, texts.is_empty(), self.pictures.inputs.is_empty()) {
            return Err(Error::Usage(format!("--texts {path}: no text in it")));
        }
        let files = match (self.pictures.inputs.is_empty(), texts.is_empty()) {
            (true, false) => Vec::new(),
            _ => self.pictures.files()?,
        };
        let mut options = self.common.options(!files.is_empty(), !texts.is_empty());
        self.pictures.apply(&mut options);
        options.jax_texts = self.jax_texts;
        let interrupt = interrupt();
        let model = self.common.load(&options)?;
        let want = match self.tokens {
            Some(layer) => Content::Tokens { layer, final_norm: self.final_norm },
            None if self.raw => Content::Raw,
            None => Content::Unit,
        };
        let mut report = Report::new(&self.common, files.len() + texts.len());
        let job = Job { model: &model, files, texts, want, limits: self.pictures.limits(), interrupt: &interrupt };
        let meta = job.meta()?;
        let summary = match &self.out {
            Some(out) => self.to_file(&job, Journal::open(out, meta, self.resume)?, &mut report)?,
            None => job.run(&[], &mut |entry, outcome| {
                report.tick();
                match outcome {
                    Ok(values) if report.is_json() => report.line(json_line(entry, &meta, values)),
                    Ok(values) => report.line(brief(entry, &meta, values)),
                    Err(error) => report.failure(&entry.input, error),
                }
            })?,
        };
        if summary.truncated > 0 {
            report
                .remark(format!("{} text(s) were longer than the model reads; their ends were cut", summary.truncated));
        }
        report.finish(&interrupt)
    }

    fn to_file(&self, job: &Job, mut journal: Journal, report: &mut Report) -> Result<Summary, Error> {
        let summary = job.run_into(&mut journal, &mut |entry, outcome| {
            report.tick();
            match outcome {
                Ok(_) => Ok(()),
                Err(error) => report.failure(&entry.input, error),
            }
        })?;
        let out = self.out.as_deref().unwrap_or(std::path::Path::new("")).display();
        if job.interrupt.is_set() {
            report.remark(format!(
                "interrupted: {} results are kept; the same command with --resume goes on",
                journal.entries().len()
            ));
            return Ok(summary);
        }
        let count = journal.finish()?;
        if !self.common.quiet {
            report.remark(format!("{out}: {count} vectors ({} from an earlier run)", summary.skipped));
        }
        Ok(summary)
    }
}

/// A line for people: the whole vector is for programs.
fn brief(entry: &Entry, meta: &Meta, values: &[f32]) -> String {
    let first: Vec<String> = values.iter().take(4).map(|v| format!("{v:.4}")).collect();
    format!("{}\t{:?}\t{} ...", entry.input, meta.shape, first.join(" "))
}
