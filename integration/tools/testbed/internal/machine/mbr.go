package machine

import (
	"encoding/binary"
	"fmt"
)

const (
	sectorSize = 512
	// partitionStart leaves the customary first MiB to the partition table.
	partitionStart = 1 << 20
	// MinDisk leaves a partition that ZFS accepts, MaxDisk is what 32 bits of
	// sectors can say.
	MinDisk = 128 << 20
	MaxDisk = 2<<40 - 1<<20
)

// partitionTable returns a master boot record with one partition that takes
// the rest of a disk of the size.
func partitionTable(size int64) ([]byte, error) {
	if size < MinDisk || size > MaxDisk || size%sectorSize != 0 {
		return nil, fmt.Errorf("a disk of %d bytes: not between %d and %d, or no multiple of %d",
			size, int64(MinDisk), int64(MaxDisk), sectorSize)
	}
	table := make([]byte, sectorSize)
	binary.LittleEndian.PutUint32(table[440:], 0x7a667374) // the disk's identity
	entry := table[446:462]
	// Cylinders, heads and sectors cannot address it: the maximum says so.
	copy(entry[1:], []byte{0xfe, 0xff, 0xff})
	entry[4] = 0x83 // Linux
	copy(entry[5:], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], partitionStart/sectorSize)
	binary.LittleEndian.PutUint32(entry[12:], uint32((size-partitionStart)/sectorSize))
	table[510], table[511] = 0x55, 0xaa
	return table, nil
}
