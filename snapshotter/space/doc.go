// Package space plans which datasets to destroy to free space. A plan names each
// dataset, the bytes that its destruction frees, and the reason. The package is pure:
// the caller executes the plan, and knows which datasets came into use meanwhile.
package space
