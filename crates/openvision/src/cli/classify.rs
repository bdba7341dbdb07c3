//! `openvision classify`.

use super::Ending;
use super::common::{Common, Pictures, interrupt};
use super::report::Report;
use clap::Args;
use openvision::Error;
use openvision::classify::{Classifier, Prediction, Prompts, labels};
use openvision::pictures::{Run, Want};
use serde_json::json;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  openvision classify -m models/tiny photos/ --labels dog,cat,\"a red bicycle\"\n  \
                        openvision classify -m models/tiny photos/ --labels @imagenet1k --templates openvision81 --top 5"
)]
pub(crate) struct Classify {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pictures: Pictures,
    /// Labels: a,b,c or @FILE (one a line) or a built-in list such as @imagenet1k, @cifar10, @food101
    #[arg(long, short, value_name = "LABELS")]
    labels: String,
    /// Prompts: imagenet80, openvision81, openai7, simple, another built-in set, or @FILE with {} for the label
    #[arg(long, short, value_name = "SET", default_value = "simple")]
    templates: String,
    /// Labels to show of each picture
    #[arg(long, short = 'k', value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,
}

impl Classify {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        let labels = labels(&self.labels)?;
        let prompts = Prompts::named(&self.templates)?;
        let files = self.pictures.files()?;
        let mut options = self.common.options(true, true);
        self.pictures.apply(&mut options);
        let interrupt = interrupt();
        let model = self.common.load(&options)?;
        let classifier = Classifier::new(&model, labels, &prompts)?;
        let mut report = Report::new(&self.common, files.len());
        let run = Run { model: &model, limits: self.pictures.limits(), want: Want::Unit, interrupt: &interrupt };
        run.files(&files, &mut |index, outcome| {
            let input = files[index].name();
            report.tick();
            match outcome {
                Ok(embedding) => {
                    let top = classifier.classify(&embedding, self.top as usize);
                    if report.is_json() {
                        report.object(&json!({ "input": input, "top": top }))
                    } else {
                        report.line(format!("{input}\t{}", readable(&top)))
                    }
                }
                Err(error) => report.failure(&input, &error),
            }
        })?;
        report.finish(&interrupt)
    }
}

fn readable(top: &[Prediction]) -> String {
    let one = |p: &Prediction| match p.share {
        None => format!("{} {:.1} %", p.label, p.probability * 100.0),
        // Probabilities of the sigmoid are small for most labels: the share shows which is most likely.
        Some(share) => format!("{} {:.2} % (share {:.1} %)", p.label, p.probability * 100.0, share * 100.0),
    };
    top.iter().map(one).collect::<Vec<String>>().join("\t")
}
