//! A reader of Python pickles that executes nothing.
//!
//! It follows the opcodes that pickles of plain data need and builds inert [`Node`]s: a class or a call in the pickle
//! becomes a node that says so, and only names that the caller allows are accepted at all. Nodes live in one vector
//! and refer to each other by index, so neither reading nor dropping recurses; every opcode makes at most one node,
//! so memory is bounded by the length of the input.

/// A class whose instances are filled as plain dicts are.
pub const ORDERED_DICT: (&str, &str) = ("collections", "OrderedDict");

/// A node's place in its [`Pickle`].
pub type NodeId = usize;

/// What a pickle holds, not yet given a meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// `bytes`
    Bytes(Vec<u8>),
    /// `str`
    Str(String),
    /// `tuple`
    Tuple(Vec<NodeId>),
    /// `list`
    List(Vec<NodeId>),
    /// `dict` or `collections.OrderedDict`, in insertion order.
    Dict(Vec<(NodeId, NodeId)>),
    /// A class or function by name.
    Global {
        /// The module's dotted name.
        module: String,
        /// The name in it.
        name: String,
    },
    /// What calling `function` with `args` would give. It is not called.
    Call {
        /// A [`Node::Global`].
        function: NodeId,
        /// A [`Node::Tuple`].
        args: NodeId,
        /// What `__setstate__` would get.
        state: Option<NodeId>,
    },
    /// A reference to something stored outside (torch's tensors).
    Persistent(NodeId),
}

/// A whole pickle.
#[derive(Debug, Clone)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: NodeId,
}

/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends early.
    #[error("the pickle ends at byte {0}, in the middle of a value")]
    Truncated(usize),
    /// An opcode that plain data do not need.
    #[error("opcode 0x{opcode:02x} at byte {at} is not one of those that plain data need")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// A class or function that was not expected here.
    #[error("it names {module}.{name}, which is not expected here and was not loaded")]
    Global {
        /// Its module.
        module: String,
        /// Its name.
        name: String,
    },
    /// Opcodes in an impossible order, a reference to nothing, or text that is not UTF-8.
    #[error("the pickle is damaged at byte {0}")]
    Damaged(usize),
}

impl Pickle {
    /// Reads a pickle; of classes and functions, only those of `allowed`, as (module, name), are accepted.
    ///
    /// # Errors
    /// See [`PickleError`].
    pub fn read(bytes: &[u8], allowed: &[(&str, &str)]) -> Result<Self, PickleError> {
        let mut machine = Machine {
            bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
        };
        let root = machine.run(allowed)?;
        Ok(Self { nodes: machine.nodes, root })
    }

    /// The id of the node that the pickle is.
    pub fn root_id(&self) -> NodeId {
        self.root
    }

    /// The node that the pickle is.
    pub fn root(&self) -> &Node {
        self.node(self.root)
    }

    /// A node that another refers to.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    /// The value under a string key of a dict.
    pub fn get(&self, dict: &Node, key: &str) -> Option<&Node> {
        let Node::Dict(items) = dict else { return None };
        let (_, value) =
            items.iter().find(|(k, _)| matches!(self.node(*k), Node::Str(found) if found == key))?;
        Some(self.node(*value))
    }
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    marks: Vec<usize>,
    memo: Vec<Option<NodeId>>,
}

impl<'b> Machine<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], PickleError> {
        let bytes = self
            .at
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(PickleError::Truncated(self.bytes.len()))?;
        self.at += len;
        Ok(bytes)
    }

    /// An unsigned little-endian integer of `len` bytes, at most eight.
    fn unsigned(&mut self, len: usize) -> Result<usize, PickleError> {
        let at = self.at;
        let value = self.take(len)?.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        usize::try_from(value).map_err(|_| PickleError::Damaged(at))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len =
            rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated(self.bytes.len()))?;
        let text = self.text(len)?;
        self.take(1)?;
        Ok(text)
    }

    fn text(&mut self, len: usize) -> Result<String, PickleError> {
        let at = self.at;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| PickleError::Damaged(at))
    }

    fn damaged(&self) -> PickleError {
        PickleError::Damaged(self.at.saturating_sub(1))
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<NodeId, PickleError> {
        // What stands below a mark belongs to the value that is still being built.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(self.damaged());
        }
        self.stack.pop().ok_or_else(|| self.damaged())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged())?;
        if mark > self.stack.len() {
            return Err(self.damaged());
        }
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, len: usize) -> Result<(), PickleError> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Node, PickleError> {
        let damaged = self.damaged();
        let top = *self.stack.last().ok_or_else(|| damaged.clone())?;
        self.nodes.get_mut(top).ok_or(damaged)
    }

    fn append(&mut self, items: Vec<NodeId>) -> Result<(), PickleError> {
        let damaged = self.damaged();
        let Node::List(list) = self.top()? else { return Err(damaged) };
        list.extend(items);
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<(), PickleError> {
        let damaged = self.damaged();
        let Node::Dict(dict) = self.top()? else { return Err(damaged) };
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(damaged);
        }
        dict.extend(pairs.filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))));
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Result<(), PickleError> {
        let top = *self.stack.last().ok_or_else(|| self.damaged())?;
        // Memo entries are numbered from 0 as they come; a far index is damage, not a reason to allocate.
        if index > self.bytes.len() {
            return Err(self.damaged());
        }
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        if let Some(slot) = self.memo.get_mut(index) {
            *slot = Some(top);
        }
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), PickleError> {
        let found = self.memo.get(index).copied().flatten().ok_or_else(|| self.damaged())?;
        self.stack.push(found);
        Ok(())
    }

    fn global(&mut self, module: String, name: String, allowed: &[(&str, &str)]) -> Result<(), PickleError> {
        if !allowed.contains(&(module.as_str(), name.as_str())) {
            return Err(PickleError::Global { module, name });
        }
        self.push(Node::Global { module, name });
        Ok(())
    }

    fn name(&mut self) -> Result<String, PickleError> {
        let id = self.pop()?;
        match self.nodes.get(id) {
            Some(Node::Str(text)) => Ok(text.clone()),
            _ => Err(self.damaged()),
        }
    }

    fn run(&mut self, allowed: &[(&str, &str)]) -> Result<NodeId, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.take(1)?.first().copied().unwrap_or_default();
            match opcode {
                0x80 => drop(self.take(1)?),                // PROTO
                0x95 => drop(self.take(8)?),                // FRAME
                b'.' => return self.pop(),                  // STOP
                b'(' => self.marks.push(self.stack.len()),  // MARK
                b'0' => drop(self.pop()?),                  // POP
                b'N' => self.push(Node::None),              // NONE
                0x88 => self.push(Node::Bool(true)),        // NEWTRUE
                0x89 => self.push(Node::Bool(false)),       // NEWFALSE
                b')' => self.push(Node::Tuple(Vec::new())), // EMPTY_TUPLE
                b']' => self.push(Node::List(Vec::new())),  // EMPTY_LIST
                b'}' => self.push(Node::Dict(Vec::new())),  // EMPTY_DICT
                b'K' => {
                    let value = self.unsigned(1)? as i64; // BININT1
                    self.push(Node::Int(value));
                }
                b'M' => {
                    let value = self.unsigned(2)? as i64; // BININT2
                    self.push(Node::Int(value));
                }
                b'J' => {
                    let value = self.unsigned(4)? as u32 as i32; // BININT
                    self.push(Node::Int(i64::from(value)));
                }
                0x8a => {
                    let len = self.unsigned(1)?; // LONG1
                    if len > 8 {
                        return Err(self.damaged());
                    }
                    let bytes = self.take(len)?;
                    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { -1 } else { 0 };
                    let value = bytes.iter().rev().fold(fill, |value, &byte| value << 8 | i64::from(byte));
                    self.push(Node::Int(value));
                }
                b'G' => {
                    let bits = self.take(8)?.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte)); // BINFLOAT
                    self.push(Node::Float(f64::from_bits(bits)));
                }
                0x8c | b'X' | 0x8d => {
                    let len = self.unsigned(prefix(opcode))?; // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
                    let text = self.text(len)?;
                    self.push(Node::Str(text));
                }
                b'C' | b'B' | 0x8e => {
                    let len = self.unsigned(prefix(opcode))?; // SHORT_BINBYTES, BINBYTES, BINBYTES8
                    let bytes = self.take(len)?.to_vec();
                    self.push(Node::Bytes(bytes));
                }
                b't' => {
                    let items = self.pop_to_mark()?; // TUPLE
                    self.push(Node::Tuple(items));
                }
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?, // TUPLE1 to TUPLE3
                b'a' => {
                    let item = self.pop()?; // APPEND
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?; // APPENDS
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?); // SETITEM
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?; // SETITEMS
                    self.set_items(&items)?;
                }
                0x94 => self.remember(self.memo.len())?, // MEMOIZE
                b'q' | b'r' => {
                    let index = self.unsigned(if opcode == b'q' { 1 } else { 4 })?; // BINPUT, LONG_BINPUT
                    self.remember(index)?;
                }
                b'h' | b'j' => {
                    let index = self.unsigned(if opcode == b'h' { 1 } else { 4 })?; // BINGET, LONG_BINGET
                    self.recall(index)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?); // GLOBAL
                    self.global(module, name, allowed)?;
                }
                0x93 => {
                    let (name, module) = (self.name()?, self.name()?); // STACK_GLOBAL
                    self.global(module, name, allowed)?;
                }
                b'R' | 0x81 => {
                    let (args, function) = (self.pop()?, self.pop()?); // REDUCE, NEWOBJ
                    let callable = matches!(self.nodes.get(function), Some(Node::Global { .. }));
                    let Some(Node::Tuple(given)) = self.nodes.get(args).filter(|_| callable) else {
                        return Err(self.damaged());
                    };
                    let empty = given.is_empty();
                    let made = match self.nodes.get(function) {
                        // What follows fills it as it fills a dict.
                        Some(Node::Global { module, name })
                            if empty && (module.as_str(), name.as_str()) == ORDERED_DICT =>
                        {
                            Node::Dict(Vec::new())
                        }
                        _ => Node::Call { function, args, state: None },
                    };
                    self.push(made);
                }
                b'b' => {
                    let given = self.pop()?; // BUILD
                    let damaged = self.damaged();
                    match self.top()? {
                        Node::Call { state, .. } => *state = Some(given),
                        // Attributes of an OrderedDict: torch notes its modules' versions there.
                        Node::Dict(_) => {}
                        _ => return Err(damaged),
                    }
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    self.push(Node::Persistent(id));
                }
                _ => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }
}

/// Length of the length before a string.
fn prefix(opcode: u8) -> usize {
    match opcode {
        0x8c | b'C' => 1,
        b'X' | b'B' => 4,
        _ => 8,
    }
}
