//go:build !linux

package main

import "errors"

func newCoroutines() (backend, error) { return nil, errors.ErrUnsupported }
