package setup

import (
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// The properties that CheckKey reads.
const (
	KeyStatus      = "keystatus"
	EncryptionRoot = "encryptionroot"
)

var keyProperties = []string{KeyStatus, EncryptionRoot}

// CheckKey returns an error if the properties of a dataset show that its key is not loaded.
func CheckKey(dataset string, props map[string]zfs.Property) error {
	if props[KeyStatus].Value != "unavailable" {
		return nil
	}
	return fmt.Errorf("dataset %s is encrypted and its key is not loaded: run 'zfs load-key %s'", dataset, props[EncryptionRoot].Value)
}
