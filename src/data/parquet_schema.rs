//! What Parquet's footer and page headers are made of (parquet.thrift): the fields that polars reads.

use super::thrift::Schema;
use super::thrift::Shape::{Binaries, Binary, Bool, Byte, Int, Ints, Struct, Structs};

/// `FileMetaData`, the footer.
pub(super) const FILE: Schema = &[
    (1, Int),
    (2, Structs(SCHEMA_ELEMENT)),
    (3, Int),
    (4, Structs(ROW_GROUP)),
    (5, Structs(KEY_VALUE)),
    (6, Binary),
    (7, Structs(COLUMN_ORDER)),
];

/// `PageHeader`, before every page.
pub(super) const PAGE_HEADER: Schema = &[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Int),
    (5, Struct(&[(1, Int), (2, Int), (3, Int), (4, Int), (5, Struct(STATISTICS))])),
    (6, Struct(&[])),
    (7, Struct(&[(1, Int), (2, Int), (3, Bool)])),
    (
        8,
        Struct(&[
            (1, Int),
            (2, Int),
            (3, Int),
            (4, Int),
            (5, Int),
            (6, Int),
            (7, Bool),
            (8, Struct(STATISTICS)),
        ]),
    ),
];

const SCHEMA_ELEMENT: Schema = &[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Binary),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Int),
    (9, Int),
    (10, Struct(LOGICAL_TYPE)),
];

const LOGICAL_TYPE: Schema = &[
    (1, Struct(&[])),
    (2, Struct(&[])),
    (3, Struct(&[])),
    (4, Struct(&[])),
    (5, Struct(&[(1, Int), (2, Int)])),
    (6, Struct(&[])),
    (7, Struct(TIME)),
    (8, Struct(TIME)),
    (10, Struct(&[(1, Byte), (2, Bool)])),
    (11, Struct(&[])),
    (12, Struct(&[])),
    (13, Struct(&[])),
    (14, Struct(&[])),
    (15, Struct(&[])),
];

/// `TimeType` and `TimestampType`.
const TIME: Schema = &[(1, Bool), (2, Struct(&[(1, Struct(&[])), (2, Struct(&[])), (3, Struct(&[]))]))];

const ROW_GROUP: Schema = &[
    (1, Structs(COLUMN_CHUNK)),
    (2, Int),
    (3, Int),
    (4, Structs(&[(1, Int), (2, Bool), (3, Bool)])),
    (5, Int),
    (6, Int),
    (7, Int),
];

const COLUMN_CHUNK: Schema =
    &[(1, Binary), (2, Int), (3, Struct(COLUMN)), (4, Int), (5, Int), (6, Int), (7, Int)];

/// `ColumnMetaData`.
const COLUMN: Schema = &[
    (1, Int),
    (2, Ints),
    (3, Binaries),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Structs(KEY_VALUE)),
    (9, Int),
    (10, Int),
    (11, Int),
    (12, Struct(STATISTICS)),
    (14, Int),
    (15, Int),
];

const STATISTICS: Schema =
    &[(1, Binary), (2, Binary), (3, Int), (4, Int), (5, Binary), (6, Binary), (7, Bool), (8, Bool)];

const KEY_VALUE: Schema = &[(1, Binary), (2, Binary)];

const COLUMN_ORDER: Schema = &[(1, Struct(&[])), (2, Struct(&[]))];
