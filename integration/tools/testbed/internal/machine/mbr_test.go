package machine

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

func TestPartitionTable(t *testing.T) {
	const size = 4 << 30
	table, err := partitionTable(size)
	if err != nil {
		t.Fatal(err)
	}
	if len(table) != 512 || table[510] != 0x55 || table[511] != 0xaa {
		t.Fatal("no master boot record")
	}
	entry := table[446:]
	start, sectors := binary.LittleEndian.Uint32(entry[8:]), binary.LittleEndian.Uint32(entry[12:])
	if entry[4] != 0x83 || start != 2048 || int64(start)+int64(sectors) != size/512 {
		t.Errorf("type %#x, start %d, sectors %d", entry[4], start, sectors)
	}
	for _, other := range table[462:510] {
		if other != 0 {
			t.Fatal("there is more than one partition")
		}
	}
}

func TestPartitionTableOfOddSizes(t *testing.T) {
	for _, size := range []int64{-512, 0, 512, MinDisk - 512, MinDisk + 1, MaxDisk + 512} {
		if _, err := partitionTable(size); err == nil {
			t.Errorf("%d bytes were accepted", size)
		}
	}
	for _, size := range []int64{MinDisk, MaxDisk} {
		if _, err := partitionTable(size); err != nil {
			t.Error(err)
		}
	}
}

func TestDiskIsMadeOnceAndOpenedByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	disk, err := OpenDisk(path, MinDisk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(path, MinDisk); err == nil {
		t.Error("two runs have it open")
	}
	if _, err := disk.file.WriteAt([]byte("data"), partitionStart); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(path, 2*MinDisk); err == nil {
		t.Error("it has another size")
	}
	disk, err = OpenDisk(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4)
	if _, err := disk.file.ReadAt(data, partitionStart); err != nil || string(data) != "data" {
		t.Error(string(data), err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(os.DevNull, MinDisk); err == nil {
		t.Error("a device is no image")
	}
}
