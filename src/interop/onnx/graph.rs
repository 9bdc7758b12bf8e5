//! A graph of ONNX operations in the making.

use std::collections::BTreeMap;

use super::proto::{
    AttributeProto, DimensionProto, FLOAT, GraphProto, INT64, NodeProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::weights::Weights;

/// The file beside the model that holds its weights.
pub(super) const WEIGHTS: &str = "model.onnx.data";

/// A value of the graph, by its name.
#[derive(Debug, Clone)]
pub(super) struct Value(String);

/// A size along an axis.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size<'a> {
    /// So many.
    Is(usize),
    /// Whatever a caller has.
    Free(&'a str),
}

/// Operations, constants, inputs and outputs so far. An operation uses only what was added before it.
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    proto: GraphProto,
    /// What goes into [`WEIGHTS`].
    pub(super) weights: Weights<'a>,
    /// Constants of a few integers, by what they hold.
    ints: BTreeMap<Vec<i64>, Value>,
}

impl<'a> Graph<'a> {
    /// The finished graph.
    pub(super) fn finish(self, name: &str) -> (GraphProto, Weights<'a>) {
        (GraphProto { name: Some(name.to_owned()), ..self.proto }, self.weights)
    }

    /// An input of integers.
    pub(super) fn input_ints(&mut self, name: &str, shape: &[Size<'_>]) -> Value {
        self.proto.input.push(info(name, INT64, shape));
        Value(name.to_owned())
    }

    /// An input of numbers.
    pub(super) fn input(&mut self, name: &str, shape: &[Size<'_>]) -> Value {
        self.proto.input.push(info(name, FLOAT, shape));
        Value(name.to_owned())
    }

    /// Gives a value a name that callers ask for.
    pub(super) fn output(&mut self, name: &str, value: &Value, shape: &[Size<'_>]) {
        self.named(name, value);
        self.proto.output.push(info(name, FLOAT, shape));
    }

    /// The same of integers.
    pub(super) fn output_ints(&mut self, name: &str, value: &Value, shape: &[Size<'_>]) {
        self.named(name, value);
        self.proto.output.push(info(name, INT64, shape));
    }

    fn named(&mut self, name: &str, value: &Value) {
        let node = NodeProto {
            input: vec![value.0.clone()],
            output: vec![name.to_owned()],
            name: Some(name.to_owned()),
            op_type: Some("Identity".to_owned()),
            attribute: Vec::new(),
        };
        self.proto.node.push(node);
    }

    /// An operation with one output.
    pub(super) fn op(&mut self, kind: &str, inputs: &[&Value], attributes: &[(&str, Attribute)]) -> Value {
        let name = format!("{kind}_{}", self.proto.node.len());
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|input| input.0.clone()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(kind.to_owned()),
            attribute: attributes.iter().map(|(name, value)| value.proto(name)).collect(),
        });
        Value(name)
    }

    /// A constant list of integers.
    pub(super) fn ints(&mut self, values: &[i64]) -> Value {
        if let Some(known) = self.ints.get(values) {
            return known.clone();
        }
        let value = Value(format!("ints_{}", self.ints.len()));
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.proto.initializer.push(constant(&value.0, INT64, &[values.len()], bytes));
        self.ints.insert(values.to_vec(), value.clone());
        value
    }

    /// A constant of few numbers, held in the graph itself.
    pub(super) fn numbers(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.proto.initializer.push(constant(name, FLOAT, shape, bytes));
        Value(name.to_owned())
    }

    /// A constant number.
    pub(super) fn number(&mut self, value: f32) -> Value {
        let name = format!("number_{}", self.proto.initializer.len());
        self.numbers(&name, &[1], &[value])
    }

    /// Weights, row-major, in the file beside the graph.
    pub(super) fn table(&mut self, name: &str, shape: &[usize], values: &'a [f32]) -> Value {
        let place = self.weights.add(values, None);
        self.external(name, shape, place)
    }

    /// `x` times the transpose of a weight (outputs, inputs), which is what linear layers hold.
    pub(super) fn linear(
        &mut self,
        x: &Value,
        name: &str,
        shape: (usize, usize),
        values: &'a [f32],
    ) -> Value {
        let place = self.weights.add(values, Some(shape));
        let weight = self.external(name, &[shape.1, shape.0], place);
        self.op("MatMul", &[x, &weight], &[])
    }

    fn external(&mut self, name: &str, shape: &[usize], (offset, length): (u64, u64)) -> Value {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        self.proto.initializer.push(TensorProto {
            dims: dims(shape),
            data_type: Some(FLOAT),
            name: Some(name.to_owned()),
            external_data: vec![
                entry("location", WEIGHTS.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            data_location: Some(1),
            raw_data: None,
        });
        Value(name.to_owned())
    }

    /// Sum, product and the like of two values.
    pub(super) fn two(&mut self, kind: &str, x: &Value, y: &Value) -> Value {
        self.op(kind, &[x, y], &[])
    }

    /// Elements `from .. to` along an axis; both are values of one integer.
    pub(super) fn between(&mut self, x: &Value, from: &Value, to: &Value, axis: i64) -> Value {
        let axis = self.ints(&[axis]);
        self.op("Slice", &[x, from, to, &axis], &[])
    }

    /// The same with constant ends, which count from the end where they are negative.
    pub(super) fn slice(&mut self, x: &Value, from: i64, to: i64, axis: i64) -> Value {
        let (from, to) = (self.ints(&[from]), self.ints(&[to]));
        self.between(x, &from, &to, axis)
    }

    /// The size of a value along an axis, a list of one integer.
    pub(super) fn size(&mut self, x: &Value, axis: i64) -> Value {
        let shape = self.op("Shape", &[x], &[]);
        self.slice(&shape, axis, axis + 1, 0)
    }

    /// Another shape; 0 keeps a size, -1 takes what is left.
    pub(super) fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.ints(shape);
        self.op("Reshape", &[x, &shape], &[])
    }

    /// Axes in another order.
    pub(super) fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.op("Transpose", &[x], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    /// New axes of size 1.
    pub(super) fn unsqueeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        self.op("Unsqueeze", &[x], &[("axes", Attribute::Ints(axes.to_vec()))])
    }

    /// One behind the other along an axis.
    pub(super) fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        self.op("Concat", parts, &[("axis", Attribute::Int(axis))])
    }
}

/// What an operation is told beside its inputs.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
}

impl Attribute {
    fn proto(&self, name: &str) -> AttributeProto {
        let name = Some(name.to_owned());
        match self {
            Self::Int(i) => AttributeProto { name, i: Some(*i), ints: Vec::new(), kind: Some(2) },
            Self::Ints(ints) => AttributeProto { name, i: None, ints: ints.clone(), kind: Some(7) },
        }
    }
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}

fn constant(name: &str, data_type: i32, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims(shape),
        data_type: Some(data_type),
        name: Some(name.to_owned()),
        raw_data: Some(bytes),
        ..TensorProto::default()
    }
}

fn info(name: &str, elem_type: i32, shape: &[Size<'_>]) -> ValueInfoProto {
    let dim = |size: &Size<'_>| match *size {
        Size::Is(size) => DimensionProto { dim_value: Some(size as i64), dim_param: None },
        Size::Free(name) => DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) },
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: Some(elem_type), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_owned()), value_type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
