// Package space plans the destruction of datasets: which of them, in which order, why, and
// when the next one is due. NewPlan makes every plan: of cleanups, of evictions and reclaims, of
// the background goroutine, of the cleanup mark, and of the command's dry run. The package is
// pure: the caller executes the plan, and knows which datasets came into use meanwhile.
package space
