//! `openvision eval drift`: what options that change a model's numbers do to its embeddings.

use super::Ending;
use super::common::{Common, Pictures, interrupt};
use super::report::Report;
use clap::Args;
use openvision::{Error, LoadOptions, drift};
use openvision_model::Arithmetic;
use serde_json::json;

#[derive(Args)]
#[command(after_help = "Example:\n  openvision eval drift -m models/tiny --precision int8 photos/\n\
                        prints the mean and the smallest cosine to the same model without --precision.")]
pub(crate) struct Drift {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pictures: Pictures,
}

impl Drift {
    /// The same model without the options that change its numbers.
    fn plain(changed: &LoadOptions) -> LoadOptions {
        LoadOptions { arithmetic: Arithmetic::Float, rounded: None, ..changed.clone() }
    }

    pub(crate) fn run(self) -> Result<Ending, Error> {
        let inputs = self.pictures.files()?;
        let mut options = self.common.options(true, false);
        options.image_size = self.pictures.image_size;
        let interrupt = interrupt();
        let mut report = Report::new(&self.common, 2 * inputs.len());
        let pictures = drift::Pictures { inputs: &inputs, limits: self.pictures.limits(), interrupt: &interrupt };
        // One model at a time is in memory.
        let model = self.common.load(&Self::plain(&options))?;
        let plain = pictures.embed(&model, &mut |index, error| {
            report.tick();
            error.map_or(Ok(()), |error| report.failure(&inputs[index].name(), error))
        })?;
        drop(model);
        let model = self.common.load(&options)?;
        let changed = pictures.embed(&model, &mut |_, _| {
            report.tick();
            Ok(())
        })?;
        let found = pictures.compare(&plain, &changed)?;
        let floats = model.image()?.float_maps();
        if report.is_json() {
            let mut line = json!(found);
            line["precision"] = json!(model.precision());
            line["float_maps"] = json!(floats);
            report.object(&line)?;
        } else {
            report.line(format!(
                "cosine to f32: mean {:.6}, smallest {:.6} ({}); {} pictures",
                found.mean, found.minimum, found.worst, found.pictures
            ))?;
            if model.precision() != "f32" {
                report.line(format!("in 32 bits: attention, norms, {}", floats.join(", ")))?;
            }
        }
        report.finish(&interrupt)
    }
}
