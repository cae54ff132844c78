package snapshotter

import (
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// The properties that CheckKey looks at.
const (
	KeyStatus      = "keystatus"
	EncryptionRoot = "encryptionroot"
)

var keyProperties = []string{KeyStatus, EncryptionRoot}

// CheckKey refuses a dataset whose key is not loaded, by its properties.
func CheckKey(dataset string, props map[string]zfs.Property) error {
	if props[KeyStatus].Value != "unavailable" {
		return nil
	}
	return fmt.Errorf("dataset %s is encrypted and its key is not loaded: 'zfs load-key %s' loads it", dataset, props[EncryptionRoot].Value)
}
