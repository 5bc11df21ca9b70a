package main

import (
	"fmt"
	"os"
	"strings"
)

var mode = "unknown"

func main() {
	if len(os.Args) < 2 {
		fmt.Println("app in", mode)
		return
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(len(strings.Fields(string(data))), "cases")
}
