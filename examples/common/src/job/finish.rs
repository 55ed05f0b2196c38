//! The end of a job: the packed file, the test images, the report.

use std::time::Instant;

use burn_alq::PackedModel;

use super::{CHECKPOINT, Goal, Models, PACKED, Runner, interrupted};
use crate::data::DATA_CLASSES;
use crate::document::Document as _;
use crate::packed::{MODEL, load, print_skipped, unpack};
use crate::progress::bar;
use crate::report::{Accuracies, Report};
use crate::say::say;
use crate::score::{Counts, Tally, visit};
use crate::{Failure, Network};

impl<N: Network> Runner<'_, N> {
    /// Packs a trained network, evaluates it and writes file and report.
    pub(super) fn finish(
        &self,
        models: &Models<N>,
        kept: &N,
        goal: &Goal,
        start: Instant,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let job = self.job;
        let storage = &job.flags.levers.storage;
        let trained = &models.quantized;
        let packed = PackedModel::pack(trained)?;
        let packed = packed.with_coordinate_type(goal.schedule.coordinate_type)?;
        let mut packed = storage.round(packed)?;
        packed.config.extend(job.config.clone());
        packed.config.insert(MODEL.into(), N::NAME.into());
        packed.config.insert("data".into(), job.data.name.clone());
        if let Some(classes) = job.data.classes {
            let classes = format!("{classes:016x}");
            packed.config.insert(DATA_CLASSES.into(), classes);
        }
        packed = self.described(packed, trained);
        let file = goal.out.join(PACKED);
        storage.save(&packed, &file)?;
        self.evaluate(kept, models, &packed, goal, report)?;
        for images in [&job.data.train, &job.data.valid, &job.data.test] {
            print_skipped(images);
        }
        report.finish(&packed, kept, &file, start.elapsed())?;
        report.write(&goal.out)
    }

    /// The model with what programs need that run it without Burn, if it is made for them.
    fn described(&self, packed: PackedModel, trained: &N) -> PackedModel {
        let data = &self.job.data;
        let packed = packed.with_name(N::TITLE);
        let described = packed.clone().with_input(data.test.input());
        let described = described.and_then(|packed| packed.with_chain(trained.chain()));
        match described {
            // A network may have more outputs than there are classes.
            Ok(described) => described
                .clone()
                .with_labels(data.labels.clone())
                .unwrap_or(described),
            Err(error) => {
                say!("the packed model runs under Burn alone: {error}");
                packed
            }
        }
    }

    /// The only use of the test images: the float network, its control, the trained network, the packed form
    /// in memory and the file.
    fn evaluate(
        &self,
        float: &N,
        models: &Models<N>,
        packed: &PackedModel,
        goal: &Goal,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let device = &self.device;
        let test = &self.job.data.test;
        let (file, checkpoint) = (goal.out.join(PACKED), goal.out.join(CHECKPOINT));
        say!("evaluation on {} test images", test.count());
        let trained = models.quantized.valid();
        let control = models.control.as_ref().map(|model| model.valid());
        let memory: N = unpack(packed, device)?;
        let (_, loaded) = load::<N>(&file, device)?;
        let mut tallies: [Tally; 3] = Default::default();
        let mut controls = Tally::default();
        let mut counts = Counts::default();
        let bar = bar("evaluation {bar:24} {pos}/{len} {msg}", test.count());
        let eta = self.clock.eta();
        bar.set_message(eta.map_or(String::new(), |eta| eta.to_string()));
        visit::<N>(test, device, &bar, |input, labels| {
            if self.stop.is_asked() {
                return Err(interrupted(&checkpoint));
            }
            let scores = |model: &N| model.forward(input.clone());
            let [float, trained, memory, loaded] = [float, &trained, &memory, &loaded].map(scores);
            let [best, expected] = [&loaded, &trained].map(|scores| scores.clone().argmax(1));
            counts.add(vec![
                memory.not_equal(loaded.clone()).int().sum(),
                best.not_equal(expected).int().sum(),
            ]);
            for (tally, scores) in tallies.iter_mut().zip([float, trained, loaded]) {
                tally.add(scores, labels.clone());
            }
            if let Some(control) = &control {
                controls.add(control.forward(input), labels);
            }
            Ok(())
        })?;
        let [unequal, changed] = counts.read();
        if unequal > 0 {
            let error = "the packed file computes other scores than the model in memory";
            return Err(error.into());
        }
        let [float, trained, packed] = tallies.map(Tally::read);
        let top5 = [float, trained, packed].map(|accuracy| accuracy.top5);
        report.accuracies = Accuracies {
            float: float.top1,
            trained: trained.top1,
            packed: packed.top1,
            control: control.map(|_| controls.read().top1),
            top5: N::TOP5.then_some(top5),
            changed,
            images: float.images,
        };
        Ok(())
    }
}
