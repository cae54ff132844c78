// Package layout builds, parses and checks the names of datasets. It is the only
// package that does. It is pure: it does no I/O and does not know the pool.
//
//	<base>/storage/empty@extracted              the empty template every chain starts from
//	<base>/storage/sha256:<64 hex>@extracted    an image layer, named by its chain ID
//	<base>/storage/ns-<16 hex>-sha256:<64 hex>@extracted  an image layer of one namespace
//	<base>/storage/opaque-<id>@extracted        a commit that is not an image layer
//	<base>/runtime/<readable>-<id>              a writable clone of a template
//
// What clients control (names, keys, labels) does not become part of a dataset
// name, with three exceptions: a chain ID, which must match its exact form; a
// namespace, as a hash; and the readable part of a runtime's name, which is
// reduced to letters, digits and dashes.
package layout
