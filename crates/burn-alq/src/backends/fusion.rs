//! A weight's state under Burn's kernel fusion: each of its tensors by Burn's own adapter.

use alloc::vec::{IntoIter, Vec};

use burn_core::backend::Backend;
use burn_core::backend::fusion::custom::{
    ExtensionMetadata, Float, FusionValueAdapter, HandleContainer, Int, OutputTensor, TensorId,
    TensorIr, TensorSpec,
};
use burn_core::backend::fusion::{
    ExecutionError, Fusion, FusionBackend, FusionRuntime, FusionTensor,
};
use multibit::fit::State;

use crate::ops::StepState;

type Handles<B> =
    HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

type Fused<B> = FusionTensor<<B as FusionBackend>::FusionRuntime>;

impl<B: Backend> ExtensionMetadata for StepState<B> {
    type Metadata = State<TensorSpec, TensorSpec>;
    type Input = State<TensorIr, TensorIr>;
    type Output = State<OutputTensor, OutputTensor>;
}

impl<B: FusionBackend> FusionValueAdapter<B> for StepState<B> {
    type Metadata = State<TensorSpec, TensorSpec>;
    type Input = State<TensorIr, TensorIr>;
    type Output = State<OutputTensor, OutputTensor>;
    type Inner = Self;
    type Fused = StepState<Fusion<B>>;

    fn to_metadata(value: &Self::Fused) -> Self::Metadata {
        let int = <Int as FusionValueAdapter<B>>::to_metadata;
        let float = <Float as FusionValueAdapter<B>>::to_metadata;
        value.0.as_ref().map(int, int, float)
    }

    fn visit_fused_tensors(value: &Self::Fused, visit: &mut impl FnMut(&Fused<B>)) {
        value.0.as_ref().each(
            visit,
            |tensor, visit| visit(tensor),
            |tensor, visit| visit(tensor),
        );
    }

    fn tensor_count(meta: &Self::Metadata) -> usize {
        let mut count = 0;
        let add = |_: &TensorSpec, count: &mut usize| *count += 1;
        meta.as_ref().each(&mut count, add, add);
        count
    }

    fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Self::Input {
        value.0.each(
            inputs,
            |tensor, inputs| <Int as FusionValueAdapter<B>>::append_input_ir(tensor, inputs),
            |tensor, inputs| <Float as FusionValueAdapter<B>>::append_input_ir(tensor, inputs),
        )
    }

    fn resolve_inputs(input: &Self::Input, handles: &mut Handles<B>) -> Self {
        StepState(input.as_ref().each(
            handles,
            |tensor, handles| <Int as FusionValueAdapter<B>>::resolve_inputs(tensor, handles),
            |tensor, handles| <Float as FusionValueAdapter<B>>::resolve_inputs(tensor, handles),
        ))
    }

    fn append_output_ir(
        meta: &Self::Metadata,
        out: &mut Vec<TensorIr>,
        create: &mut impl FnMut() -> TensorId,
    ) -> Self::Output {
        let mut context = (out, create);
        meta.as_ref().each(
            &mut context,
            |spec, (out, create)| {
                <Int as FusionValueAdapter<B>>::append_output_ir(spec, out, *create)
            },
            |spec, (out, create)| {
                <Float as FusionValueAdapter<B>>::append_output_ir(spec, out, *create)
            },
        )
    }

    fn validate_outputs(
        value: &Self,
        output: &Self::Output,
        device: Option<&B::Device>,
    ) -> Result<(), ExecutionError> {
        let int = |(value, output)| {
            <Int as FusionValueAdapter<B>>::validate_outputs(value, output, device)
        };
        let float = |(value, output)| {
            <Float as FusionValueAdapter<B>>::validate_outputs(value, output, device)
        };
        let all = value.0.as_ref().zip(output.as_ref()).map(int, int, float);
        let mut result = all.codes.and(all.widths).and(all.coordinates);
        for moments in [all.weight, all.alpha] {
            for (_, checked) in moments.named() {
                result = result.and(checked);
            }
        }
        result
    }

    fn register_output_handles(value: Self, output: &Self::Output, handles: &mut Handles<B>) {
        value.0.zip(output.as_ref()).each(
            handles,
            |(value, output), handles| {
                <Int as FusionValueAdapter<B>>::register_output_handles(value, output, handles)
            },
            |(value, output), handles| {
                <Float as FusionValueAdapter<B>>::register_output_handles(value, output, handles)
            },
        );
    }

    fn build_fused_output(meta: &Self::Metadata, tensors: &mut IntoIter<Fused<B>>) -> Self::Fused {
        StepState(meta.as_ref().each(
            tensors,
            |spec, tensors| <Int as FusionValueAdapter<B>>::build_fused_output(spec, tensors),
            |spec, tensors| <Float as FusionValueAdapter<B>>::build_fused_output(spec, tensors),
        ))
    }
}
