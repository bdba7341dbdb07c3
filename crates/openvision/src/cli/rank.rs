//! `openvision rank`.

use super::Ending;
use super::common::{Common, Pictures, interrupt};
use super::report::Report;
use clap::Args;
use openvision::Error;
use openvision::pictures::{Run, Want};
use openvision::rank::{Query, rank};
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
#[command(
    override_usage = "openvision rank [OPTIONS] TEXT INPUT...\n       openvision rank [OPTIONS] --image FILE INPUT...",
    after_help = "Examples:\n  openvision rank -m models/tiny \"two dogs in the snow\" photos/ --top 10\n  \
                  openvision rank -m models/tiny --image like-this.jpg photos/"
)]
pub(crate) struct Rank {
    #[command(flatten)]
    common: Common,
    /// First the text (unless --image is given), then files, folders, patterns, or - for a list
    #[command(flatten)]
    pictures: Pictures,
    /// Rank by likeness to this picture instead of a text
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Pictures to show [default: all]
    #[arg(long, short = 'k', value_name = "K")]
    top: Option<usize>,
}

impl Rank {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        let (query, arguments) = match (&self.image, self.pictures.inputs.split_first()) {
            (Some(image), _) => (Query::Picture(image), &self.pictures.inputs[..]),
            (None, Some((text, inputs))) => (Query::Text(text), inputs),
            (None, None) => return Err(Error::Usage("say what to rank by: a text first, or --image FILE".into())),
        };
        let files = self.pictures.expand(arguments)?;
        let mut options = self.common.options(true, self.image.is_none());
        self.pictures.apply(&mut options);
        let interrupt = interrupt();
        let model = self.common.load(&options)?;
        let mut report = Report::new(&self.common, files.len());
        let run = Run { model: &model, limits: self.pictures.limits(), want: Want::Unit, interrupt: &interrupt };
        let top = self.top.unwrap_or(files.len());
        let ranked = rank(&run, &query, &files, top, &mut |index, error| {
            report.tick();
            error.map_or(Ok(()), |error| report.failure(&files[index].name(), error))
        })?;
        for (place, hit) in ranked.iter().enumerate() {
            let input = hit.input.name();
            if report.is_json() {
                report.object(&json!({ "rank": place + 1, "input": input, "score": hit.score }))?;
            } else {
                report.line(format!("{:>4}  {:.4}  {input}", place + 1, hit.score))?;
            }
        }
        report.finish(&interrupt)
    }
}
