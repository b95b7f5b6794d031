package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// openFile opens a regular file. A pipe or a device is refused before it is opened: that could wait for ever, and what is
// read from it need have no end.
func openFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is a directory; check its name")}
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is no regular file but %s: give what comes from it on the standard input", fileKind(info.Mode()))}
	}
	return os.Open(path)
}

func fileKind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// maxFile is the largest file of rules or settings that is read: ten thousand namespaces take two megabytes.
const maxFile = 8 << 20

// readFile reads a file of bounded size. The error is the file's problems.
func readFile(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }()
	return readAll(path, f)
}

// readInput reads a file, or what comes on the standard input where the path is -. It returns what to call it, too.
func (a *App) readInput(path string) (name string, data []byte, err error) {
	if path != "-" {
		data, err = readFile(path)
		return path, data, err
	}
	data, err = readAll("stdin", a.Stdin)
	return "stdin", data, err
}

func readAll(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, unreadable(name, err)
	case len(data) > maxFile:
		return nil, problems{{File: name, Text: fmt.Sprintf("the file is larger than %d MiB, which is the most that is read", maxFile>>20)}}
	}
	return data, nil
}

func unreadable(name string, err error) error {
	hint := ""
	if errors.Is(err, fs.ErrNotExist) {
		hint = "; check its name"
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err // the path stands in front already
	}
	return problems{{File: name, Text: fmt.Sprintf("the file cannot be read: %v%s", err, hint)}}
}
