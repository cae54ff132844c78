// Package layout is the one place where dataset names are built, parsed and
// checked. It is pure: it does no I/O and knows neither containerd nor the pool.
//
//	<base>/storage/empty@extracted              the empty template every chain starts from
//	<base>/storage/sha256:<64 hex>@extracted    an image layer, named by its chain ID
//	<base>/storage/ns-<16 hex>-sha256:<64 hex>@extracted  the same of one namespace alone
//	<base>/storage/opaque-<id>@extracted        a commit that is no image layer
//	<base>/runtime/<readable>-<id>              a writable clone of a template
//
// Vocabulary: the base is the dataset everything lives under; a template is an
// immutable image layer on top of its parents; a runtime is a writable clone;
// a chain ID is OCI's name for a layer together with all layers below it.
// What clients control (names, keys, labels) never becomes part of a dataset
// name, except a chain ID, which must match its exact form, a namespace, of
// which there is a hash, and the readable part of a runtime's name, which is
// reduced to letters, digits and dashes.
package layout
