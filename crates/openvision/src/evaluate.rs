//! `eval`: how well a model names the pictures of labelled folders without having seen them (zero-shot).

use crate::classify::{Classifier, Prompts};
use crate::inputs::Input;
use crate::interrupt::Interrupt;
use crate::pictures::{ItemError, Run, Want};
use crate::{Error, Model};
use openvision_io::image::Limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// Pictures, each with the class that its folder names.
pub struct Labelled {
    /// The pictures.
    pub inputs: Vec<Input>,
    /// The class of each, as an index into `classes`.
    pub targets: Vec<usize>,
    /// Folder names, sorted.
    pub classes: Vec<String>,
}

/// Metrics of a run, defined as CLIP_benchmark does (`metrics/zeroshot_classification.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Pictures that were classified.
    pub pictures: usize,
    /// Pictures that could not be read; they are in no metric.
    pub failed: usize,
    /// Classes.
    pub classes: usize,
    /// Share of pictures whose class is the most probable one.
    pub acc1: f64,
    /// Share of pictures whose class is among the five most probable ones, where there are five.
    pub acc5: Option<f64>,
    /// Mean over the classes that occur of the share of their pictures that were right.
    pub mean_per_class_recall: f64,
    /// Pictures decoded and encoded a second, without loading the model.
    pub pictures_per_second: f64,
}

impl Labelled {
    /// Takes the name of each picture's folder as its class: `.../dog/1.jpg`, `shard.tar/dog/1.jpg`.
    ///
    /// # Errors
    /// A picture lies in no folder, or there are fewer than two classes.
    pub fn from_folders(inputs: Vec<Input>) -> Result<Self, Error> {
        let mut labels = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let name = input.name();
            let folder = Path::new(name.as_ref()).parent().and_then(Path::file_name).map(|f| f.to_string_lossy());
            match folder {
                Some(folder) => labels.push(folder.into_owned()),
                None => return Err(Error::Usage(format!("{name}: no folder names its class (FOLDER/CLASS/PICTURE)"))),
            }
        }
        let classes: Vec<String> = labels.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if classes.len() < 2 {
            let found = classes.join(", ");
            return Err(Error::Usage(format!("one class only ({found}): pictures lie in FOLDER/CLASS/PICTURE")));
        }
        let index: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
        let targets = labels.iter().map(|label| index[label.as_str()]).collect();
        Ok(Self { inputs, targets, classes })
    }

    /// Names for prompts: the folder's name with spaces for underscores, or what `names` says (`FOLDER<tab>NAME` lines).
    ///
    /// # Errors
    /// A line has no tab.
    pub fn names(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let mut given = BTreeMap::new();
        for line in names {
            let (folder, name) = line
                .split_once('\t')
                .ok_or_else(|| Error::Usage(format!("--names: '{line}' is not FOLDER, a tab, and the name")))?;
            given.insert(folder, name);
        }
        let name =
            |class: &String| given.get(class.as_str()).map_or_else(|| class.replace('_', " "), ToString::to_string);
        Ok(self.classes.iter().map(name).collect())
    }
}

/// Hears of each picture as it is done; an error ends the run.
pub type Hear<'a> = &'a mut (dyn FnMut(usize, Option<&ItemError>) -> Result<(), Error> + Send);

/// A zero-shot classification of labelled pictures.
pub struct ZeroShot<'a> {
    /// The model, both towers loaded.
    pub model: &'a Model,
    /// The pictures.
    pub data: &'a Labelled,
    /// Class names in prompts, by class.
    pub names: Vec<String>,
    /// How names become prompts.
    pub prompts: &'a Prompts,
    /// Limits of decoding.
    pub limits: Limits,
    /// Stops the run; the metrics then cover what was done.
    pub interrupt: &'a Interrupt,
}

impl ZeroShot<'_> {
    /// Runs over all pictures.
    ///
    /// # Errors
    /// A tower is missing, or `hear` failed. Broken pictures are reported and left out.
    pub fn run(&self, hear: Hear) -> Result<Accuracy, Error> {
        let classes = self.data.classes.len();
        let classifier = Classifier::new(self.model, self.names.clone(), self.prompts)?;
        let mut seen = vec![0usize; classes];
        let mut right = vec![0usize; classes];
        let (mut among_five, mut failed) = (0, 0);
        let run = Run { model: self.model, limits: self.limits, want: Want::Unit, interrupt: self.interrupt };
        let started = Instant::now();
        run.files(&self.data.inputs, &mut |index, outcome| {
            match &outcome {
                Ok(embedding) => {
                    let (target, best) = (self.data.targets[index], classifier.best(embedding, 5));
                    seen[target] += 1;
                    right[target] += usize::from(best.first() == Some(&target));
                    among_five += usize::from(best.contains(&target));
                }
                Err(_) => failed += 1,
            }
            hear(index, outcome.as_ref().err())
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let pictures: usize = seen.iter().sum();
        if pictures == 0 {
            return Err(Error::Usage("no picture could be read".into()));
        }
        let share = |count: usize| count as f64 / pictures as f64;
        let recalls: Vec<f64> = std::iter::zip(&right, &seen)
            .filter(|(_, seen)| **seen > 0)
            .map(|(right, seen)| *right as f64 / *seen as f64)
            .collect();
        Ok(Accuracy {
            pictures,
            failed,
            classes,
            acc1: share(right.iter().sum()),
            acc5: (classes >= 5).then(|| share(among_five)),
            mean_per_class_recall: recalls.iter().sum::<f64>() / recalls.len() as f64,
            pictures_per_second: pictures as f64 / seconds,
        })
    }
}
