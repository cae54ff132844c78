package wire

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Pack writes the file or directory at source into the archive as name.
// What is neither a file, a directory nor a symbolic link is left out and
// returned in skipped.
func Pack(tw *tar.Writer, source, name string) (skipped []string, err error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	err = filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		member := path.Join(name, filepath.ToSlash(relative))
		if member == "" || member == "." {
			return nil
		}
		packed, err := packOne(tw, file, member, file == source)
		if err == nil && !packed {
			skipped = append(skipped, member)
		}
		return err
	})
	return skipped, err
}

// packOne follows a symbolic link only where it was named by the user.
func packOne(tw *tar.Writer, file, member string, follow bool) (bool, error) {
	stat := os.Lstat
	if follow {
		stat = os.Stat
	}
	info, err := stat(file)
	if err != nil {
		return false, err
	}
	target := ""
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if target, err = os.Readlink(file); err != nil {
			return false, err
		}
	default:
		return false, nil
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return false, err
	}
	// The names of the packing side mean nothing on the other.
	header.Name, header.Uname, header.Gname, header.Uid, header.Gid = member, "", "", 0, 0
	header.Format = tar.FormatPAX
	if info.IsDir() {
		header.Name += "/"
	}
	if err := tw.WriteHeader(header); err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return true, nil
	}
	return true, packContent(tw, file, header.Size)
}

// packContent writes exactly size bytes: a log may be growing meanwhile, and
// a file that became shorter is filled up with zeros.
func packContent(tw *tar.Writer, file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	n, err := io.Copy(tw, io.LimitReader(f, size))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	_, err = io.CopyN(tw, zeros{}, size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Unpack reads an archive into dir. Nothing in the archive can name or write
// a place outside of dir, not even by way of symbolic links: os.Root sees to
// that. Owners are ignored.
func Unpack(r io.Reader, dir *os.Root) error {
	tr := tar.NewReader(r)
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What pads the archive must be read too, or its writer blocks.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if err := unpackOne(dir, header, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", header.Name, err)
		}
	}
}

func unpackOne(dir *os.Root, header *tar.Header, content io.Reader) error {
	name := strings.TrimSuffix(header.Name, "/")
	if !filepath.IsLocal(name) {
		return errors.New("the name leaves the directory")
	}
	if name == "." {
		return nil
	}
	if err := dir.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(header.Mode) & fs.ModePerm
	switch header.Typeflag {
	case tar.TypeDir:
		// One's own directories stay writable, or nothing could be put in.
		return dir.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		if err := replace(dir, name); err != nil {
			return err
		}
		return dir.Symlink(header.Linkname, name)
	case tar.TypeReg:
		return unpackFile(dir, name, mode, content)
	default:
		return fmt.Errorf("type %q is not supported", header.Typeflag)
	}
}

// replace removes a file or link that is in the way; a directory is not.
func replace(dir *os.Root, name string) error {
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errors.New("a directory is in the way")
	}
	return dir.Remove(name)
}

func unpackFile(dir *os.Root, name string, mode fs.FileMode, content io.Reader) (err error) {
	if err := replace(dir, name); err != nil {
		return err
	}
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
	}()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	return f.Chmod(mode)
}
