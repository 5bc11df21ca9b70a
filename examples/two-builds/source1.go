package main

import "fmt"

func main() {
	fmt.Println("the first build")
}
